"""A real foreign server of OpenAI's protocol: `transformers serve`, with the embedded poet, on a CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.processes import ROOT, free_port
from tests.support.waiting import wait_until
from web.app import create_app
from web.settings import Settings

pytestmark = pytest.mark.slow

Events = Callable[[str], list[tuple[str, Any]]]
Serve = Callable[[ASGIApp], Awaitable[str]]

NAME = "models/poet"
SERVE = """
import sys
import transformers.modeling_utils as loading
loading.check_and_set_device_map = lambda device_map: None  # for which it would want accelerate, even on a CPU
from transformers.cli.transformers import main
sys.argv = ["transformers", "serve", *sys.argv[1:]]
main()
"""
BODY = {"prompt": "春雨", "max_tokens": 8, "seed": 1, "temperature": 0.8}
LIMIT = 120.0


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """Its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", SERVE, NAME, *options], cwd=ROOT, stderr=subprocess.DEVNULL)

    def healthy() -> bool:
        assert process.poll() is None
        try:
            return httpx2.get(f"{url}/health", trust_env=False).is_success
        except httpx2.TransportError:
            return False

    try:
        wait_until(healthy, "transformers serve listens", LIMIT, pause=0.1)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def client(serve: Serve, upstream: str) -> AsyncIterator[httpx2.AsyncClient]:
    entry = {"url": upstream, "path": "/v1", "upstream_model": NAME}
    url = await serve(create_app(Settings(models={"poet": entry}, read_seconds=LIMIT)))
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        yield client


async def test_a_text_and_its_stream_are_the_same(client: httpx2.AsyncClient, events: Events) -> None:
    answer = await client.post("/generate", json=BODY)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert (result["model"], result["finish_reason"], result["usage"]["completion_tokens"]) == ("poet", "length", 8)
    assert result["text"]
    found = events((await client.post("/generate", json={**BODY, "stream": True})).text)
    told = "".join(data["text"] for name, data in found if name == "token")
    assert told == found[-1][1]["text"] == result["text"]


async def test_it_is_found_ready(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/warm")).json()["state"] == "ready"
