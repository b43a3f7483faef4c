"""Drain: what was accepted is finished, what comes meanwhile is served, and what is cut off ends with a problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from predictor.protocols.kserve_text import TextModel
from predictor.server.drain import Lifetime
from predictor.server.model_server import PredictorServer
from tests.support.waiting import eventually
from wire.listener import listen

CHAT = {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}
ROUTE = "/openai/v1/chat/completions"


@dataclass
class Serving:
    engine: Any
    server: PredictorServer
    serving: asyncio.Task[None]
    client: httpx2.AsyncClient


@pytest.fixture
async def running(engine: Any, request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    """A ready server with its real life-cycle; the parameter is (grace_seconds, quiet_seconds)."""
    grace, quiet = request.param
    model = TextModel("poet", engine)
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = PredictorServer(model, listener, Lifetime(grace_seconds=grace, quiet_seconds=quiet))
    engine.load_gate.set()
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: model.startup.ready)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        yield Serving(engine, server, serving, client)
    server.request_drain()
    server.request_drain()
    await serving
    listener.close()


@pytest.mark.parametrize("running", [(60, 0)], indirect=True)
async def test_what_was_accepted_is_finished_and_what_comes_meanwhile_is_served(running: Serving) -> None:
    gate = asyncio.Event()
    running.engine.enqueue("first", gate, " last")
    running.engine.enqueue("late")
    answer = asyncio.create_task(running.client.post(ROUTE, json=CHAT))
    await eventually(lambda: running.engine.generations)

    running.server.request_drain()

    async def ready() -> int:
        return (await running.client.get("/v2/health/ready")).status_code

    async with asyncio.timeout(60):
        while await ready() == 200:
            await asyncio.sleep(0.01)
    late = await running.client.post(ROUTE, json=CHAT)
    assert late.json()["choices"][0]["message"]["content"] == "late"
    assert not running.serving.done()
    gate.set()
    assert (await answer).json()["choices"][0]["message"]["content"] == "first last"
    await running.serving
    assert running.engine.stopped


@pytest.mark.parametrize("running", [(2, 0)], indirect=True)
async def test_a_stream_that_outlasts_the_grace_ends_with_an_error_event(running: Serving) -> None:
    running.engine.enqueue("first", asyncio.Event(), "never")
    async with running.client.stream("POST", ROUTE, json=CHAT | {"stream": True}) as response:
        lines = response.aiter_lines()
        async for line in lines:
            if "first" in line:
                break
        running.server.request_drain()
        rest = [json.loads(line.removeprefix("data: ")) async for line in lines if line.startswith("data: ")]
    assert [document["type"] for document in rest] == ["urn:shangcai:problem:unavailable"]
    assert rest[0]["retry_after"] == 1
    await running.serving


@pytest.mark.parametrize("running", [(2, 0)], indirect=True)
async def test_what_waits_when_the_grace_ends_gets_a_retry_after(running: Serving) -> None:
    running.engine.enqueue(asyncio.Event())
    waiting = asyncio.create_task(running.client.post(ROUTE, json=CHAT))
    await eventually(lambda: running.engine.generations)
    running.server.request_drain()
    answer = await waiting
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    await running.serving


@pytest.mark.parametrize("running", [(60, 30)], indirect=True)
async def test_a_second_signal_ends_the_grace(running: Serving) -> None:
    running.server.request_drain()
    running.server.request_drain()
    await asyncio.wait_for(running.serving, 20)


@pytest.mark.parametrize("running", [(60, 0)], indirect=True)
async def test_an_idle_server_ends_at_once(running: Serving) -> None:
    running.server.request_drain()
    await asyncio.wait_for(running.serving, 20)
