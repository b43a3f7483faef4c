"""Draining: what was accepted is finished, what comes meanwhile is served, and nothing is cut off without a word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from predictor.protocols.kserve_text import TextModel
from predictor.server.model_server import PredictorServer
from wire.listener import listen

CHAT = {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}
ROUTE = "/openai/v1/chat/completions"


@dataclass
class Drain:
    engine: Any
    server: PredictorServer
    serving: asyncio.Task[None]
    client: httpx.AsyncClient


@pytest.fixture
async def leaving(engine: Any, eventually: Any, request: pytest.FixtureRequest) -> AsyncIterator[Drain]:
    """A ready server under the real life-cycle; its parameter is (grace_seconds, quiet_seconds)."""
    grace, quiet = request.param
    model = TextModel("poet", engine)
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = PredictorServer(model, listener, grpc_port=None, grace_seconds=grace, quiet_seconds=quiet)
    engine.load_gate.set()
    model.start_loading(on_failure=server.leave)
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: model.startup.ready)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield Drain(engine, server, serving, client)
    server.leave()
    server.leave()
    await serving
    listener.close()


@pytest.mark.parametrize("leaving", [(60, 0)], indirect=True)
async def test_what_was_accepted_is_finished_and_what_comes_meanwhile_is_served(
    leaving: Drain, eventually: Any
) -> None:
    gate = asyncio.Event()
    leaving.engine.enqueue("first", gate, " last")
    leaving.engine.enqueue("late")
    running = asyncio.create_task(leaving.client.post(ROUTE, json=CHAT))
    await eventually(lambda: leaving.engine.generations)

    leaving.server.leave()

    async def ready() -> int:
        return (await leaving.client.get("/v2/health/ready")).status_code

    async with asyncio.timeout(60):
        while await ready() == 200:
            await asyncio.sleep(0.01)
    late = await leaving.client.post(ROUTE, json=CHAT)
    assert late.json()["choices"][0]["message"]["content"] == "late"
    assert not leaving.serving.done()
    gate.set()
    assert (await running).json()["choices"][0]["message"]["content"] == "first last"
    await leaving.serving
    assert leaving.engine.stopped


@pytest.mark.parametrize("leaving", [(2, 0)], indirect=True)
async def test_what_the_grace_is_too_short_for_ends_in_an_error_event(leaving: Drain) -> None:
    leaving.engine.enqueue("first", asyncio.Event(), "never")
    async with leaving.client.stream("POST", ROUTE, json=CHAT | {"stream": True}) as response:
        lines = response.aiter_lines()
        async for line in lines:
            if "first" in line:
                break
        leaving.server.leave()
        rest = [json.loads(line.removeprefix("data: ")) async for line in lines if line.startswith("data: ")]
    assert [document["type"] for document in rest] == ["urn:shangcai:problem:unavailable"]
    assert rest[0]["retry_after"] == 1
    await leaving.serving


@pytest.mark.parametrize("leaving", [(2, 0)], indirect=True)
async def test_what_waits_when_the_grace_ends_is_told_when_to_come_again(leaving: Drain, eventually: Any) -> None:
    leaving.engine.enqueue(asyncio.Event())
    waiting = asyncio.create_task(leaving.client.post(ROUTE, json=CHAT))
    await eventually(lambda: leaving.engine.generations)
    leaving.server.leave()
    answer = await waiting
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    await leaving.serving


@pytest.mark.parametrize("leaving", [(60, 30)], indirect=True)
async def test_asked_twice_it_does_not_wait_for_quiet(leaving: Drain) -> None:
    leaving.server.leave()
    leaving.server.leave()
    await asyncio.wait_for(leaving.serving, 20)


@pytest.mark.parametrize("leaving", [(60, 0)], indirect=True)
async def test_an_idle_server_leaves_at_once(leaving: Drain) -> None:
    leaving.server.leave()
    await asyncio.wait_for(leaving.serving, 20)
