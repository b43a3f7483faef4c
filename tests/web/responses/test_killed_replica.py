"""A replica that is killed in the middle of a response: another one goes on with it, and so does its stream."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from starlette.types import ASGIApp

from tests.support.processes import ROOT, listening
from web.app import create_app
from web.jobs.stores import redis_queue
from web.settings import Settings

pytestmark = pytest.mark.slow

LIMIT = 20.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.fixture
def start() -> Iterator[Callable[[dict[str, str]], tuple[subprocess.Popen[str], str]]]:
    """Starts a replica of web; its process and its address."""
    processes: list[subprocess.Popen[str]] = []

    def start(environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "web", "--host", "127.0.0.1", "--port", "0"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process, listening(process)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def test_the_stream_goes_on_and_nothing_is_told_twice(
    start: Callable[[dict[str, str]], tuple[subprocess.Popen[str], str]],
    serve: Callable[[ASGIApp], Awaitable[str]],
    raw_server: Callable[..., Awaitable[str]],
    stream: Callable[..., bytes],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = stream("春", "天")
    answers = iter([whole[: whole.rindex(b"data", 0, whole.index("天".encode()))], whole])
    asked: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        writer.write(HEAD + next(answers))
        await writer.drain()
        if len(asked) == 1:
            await reader.read()  # until the replica is gone
        writer.close()

    upstream = await raw_server(answer)
    killed, url = await asyncio.to_thread(start, {"MODELS": json.dumps({"poet": upstream}), "STORE_URL": redis_url})
    http_client: Any = httpx.AsyncClient(trust_env=False, timeout=LIMIT)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http_client) as client:
        events: list[Any] = []
        answered = await client.responses.create(model="poet", input="x", background=True, stream=True)

        async def follow() -> None:
            async for event in answered:
                events.append(event)
                if event.type == "response.output_text.delta":
                    killed.kill()

        with pytest.raises(openai.APIConnectionError):
            await follow()
        monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.1)
        other = await serve(create_app(Settings(models={"poet": {"url": upstream}}, store_url=redis_url)))
        again = client.with_options(base_url=f"{other}/v1")
        response, last = events[0].response.id, events[-1].sequence_number
        rest = await again.responses.retrieve(response, stream=True, starting_after=last)
        async with asyncio.timeout(LIMIT):
            events += [event async for event in rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "春天"
    assert (events[-1].type, events[-1].response.output_text) == ("response.completed", "春天")
    assert len(asked) == 2
