"""What is said of a request that has no answer yet: nothing that is not known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from contract import ModelStatus
from tests.support.waiting import eventually
from tests.support.waking import (
    ASYNC,
    LIMIT,
    LIVE,
    REQUEST,
    Events,
    Front,
    Model,
    break_connection,
    states,
    status,
    until_status,
)
from web.readiness.model_readiness import FIRST_STATUS_SECONDS

pytestmark = pytest.mark.usefixtures("first_status")

PROMISED_SECONDS = 0.1
"""Within which a client hears what its request waits for: docs/http.md."""

Serve = Callable[[ASGIApp], Awaitable[str]]


@pytest.fixture
async def client(app: Callable[..., ASGIApp], serve: Serve) -> AsyncIterator[httpx2.AsyncClient]:
    """Of a web over real sockets: what it says is read while the model is silent."""
    url = await serve(app())
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        yield client


class Statuses:
    """The states that a stream tells, one after the other."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.aiter_lines()
        self.seen: list[str] = []

    async def until(self, state: str) -> list[str]:
        async with asyncio.timeout(LIMIT):
            while state not in self.seen:
                line = await anext(self._lines)
                if line.startswith('data: {"state":"'):
                    self.seen.append(line.split('"')[3])
        return self.seen


@asynccontextmanager
async def watched(client: httpx2.AsyncClient, method: str = "POST", path: str = "/generate") -> AsyncIterator[Statuses]:
    body = REQUEST if method == "POST" else None
    async with client.stream(method, path, json=body, headers=LIVE) as response:
        yield Statuses(response)


def test_the_first_status_is_due_before_it_is_promised() -> None:
    assert FIRST_STATUS_SECONDS <= PROMISED_SECONDS / 2


async def test_a_model_that_fell_asleep_unexpectedly_is_not_called_a_queue(
    client: httpx2.AsyncClient, model: Model
) -> None:
    """By another retention, an eviction or a kill: it has answered a moment ago, and its pod is gone."""
    model.awake.set()
    assert (await client.post("/generate", json=REQUEST)).status_code == 200
    model.awake.clear()
    model.asleep = model.silent
    async with watched(client) as statuses:
        await statuses.until("pending")
        waiting = await until_status(client, state="pending")
        assert waiting["since"]
        assert model.questions == 0  # it would be held as well, and say nothing
        model.awake.set()
        assert await statuses.until("running") == ["pending", "queued", "running"]
    assert (await status(client))["state"] == "ready"


async def test_silence_past_the_idle_window_is_a_wake_up(app: Any, serve: Serve, model: Model) -> None:
    model.awake.set()
    url = await serve(app(idle_seconds=0.3))
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        assert (await client.post("/generate", json=REQUEST)).status_code == 200
        model.awake.clear()
        model.asleep = model.silent
        async with watched(client) as statuses:
            assert await statuses.until("waking") == ["pending", "waking"]
            model.awake.set()
            assert (await statuses.until("running"))[-2:] == ["queued", "running"]


async def test_what_was_never_heard_of_is_asked(client: httpx2.AsyncClient, model: Model) -> None:
    model.asleep = model.silent
    async with watched(client) as statuses:
        assert await statuses.until("waking") == ["pending", "asleep", "waking"]
        assert model.questions == 1
        model.awake.set()
        await statuses.until("running")


async def test_a_server_that_answers_its_question_and_not_the_request_is_awake(
    client: httpx2.AsyncClient, model: Model
) -> None:
    """As one that sends no header before its first token."""
    model.awake.set()
    model.held = asyncio.Event()
    async with watched(client) as statuses:
        await until_status(client, state="ready")
        assert await statuses.until("pending") == ["pending"]
        model.held.set()
        assert await statuses.until("running") == ["pending", "queued", "running"]


async def test_silence_while_others_are_answered_is_a_queue(client: httpx2.AsyncClient, model: Model) -> None:
    model.asleep = model.begun
    answered = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="ready")
    model.awake.set()
    async with watched(client) as statuses:
        assert await statuses.until("queued") == ["pending", "queued"]
        assert model.questions == 0
        model.ended.set()
        assert (await answered).status_code == 200
        assert model.held is not None
        model.held.set()
        await statuses.until("running")


async def test_a_request_that_web_holds_is_queued_and_then_passed_on(app: Any, serve: Serve, model: Model) -> None:
    model.awake.set()
    model.held = asyncio.Event()
    url = await serve(app(max_in_flight=1, idle_seconds=0))
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        first = asyncio.create_task(client.post("/generate", json=REQUEST))
        await eventually(lambda: model.posts == 1)
        async with watched(client) as statuses:
            assert await statuses.until("queued") == ["queued"]
            assert model.posts == 1
            first.cancel()
            assert await statuses.until("pending") == ["queued", "pending"]
            assert model.posts == 2
            model.held.set()
            await statuses.until("running")


async def test_a_job_that_was_passed_on_is_pending(client: httpx2.AsyncClient, model: Model) -> None:
    model.awake.set()
    assert (await client.post("/generate", json=REQUEST)).status_code == 200
    model.held = asyncio.Event()
    where = (await client.post("/generate", json=REQUEST, headers=ASYNC)).headers["location"]
    await eventually(lambda: model.posts == 2)
    async with watched(client, "GET", where) as statuses:
        assert (await statuses.until("pending"))[-1] == "pending"
        assert (await client.get(where)).json()["state"] == "queued"  # of a job that is all there is to it
        model.held.set()
        assert (await statuses.until("running"))[-1] == "running"
    async with watched(client, "GET", where) as statuses:
        assert await statuses.until("running") == ["queued", "running"]  # that it was pending is not stored


async def test_a_job_that_waits_in_the_model_server_says_so(client: httpx2.AsyncClient, model: Model) -> None:
    """By the model server's own word: it has begun its answer, and nothing has come of it yet."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def queued(_request: httpx2.Request) -> httpx2.Response:
        async def content() -> Any:
            await go.wait()
            yield model.text

        await begun.wait()
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    model.asleep = queued
    where = (await client.post("/generate", json=REQUEST, headers=ASYNC)).headers["location"]
    async with watched(client, "GET", where) as statuses:
        await statuses.until("pending")
        seen = len(statuses.seen)
        begun.set()
        await eventually(lambda: model.posts == 1)
        statuses.seen = statuses.seen[seen:]
        assert (await statuses.until("queued"))[-1] == "queued"
        go.set()
        await statuses.until("running")


# POST /warm


async def test_warming_a_model_that_fell_asleep_unexpectedly(front: Front, model: Model) -> None:
    model.awake.set()
    client = await front()
    assert (await client.post("/generate", json=REQUEST)).status_code == 200
    model.awake.clear()
    model.asleep = model.silent
    answer = await client.post("/warm")
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "5")
    assert ModelStatus.model_validate(answer.json()).state == "pending"
    model.awake.set()
    await until_status(client, state="ready")


async def test_a_model_that_never_sleeps_is_only_pending(front: Front, model: Model, events: Events) -> None:
    model.awake.set()
    model.held = asyncio.Event()
    client = await front(idle_seconds=0)
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await until_status(client, state="pending")
    assert model.questions == 0
    model.held.set()
    assert states(events((await waiting).text)) == ["pending", "queued", "running"]


async def test_what_broke_is_unknown_and_then_asked(front: Front, model: Model, events: Events) -> None:
    model.awake.set()
    client = await front()
    assert (await client.post("/generate", json=REQUEST)).status_code == 200
    model.awake.clear()
    await break_connection(client, model)
    model.asleep = model.silent
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await until_status(client, state="waking")
    model.awake.set()
    assert states(events((await waiting).text))[:3] == ["pending", "asleep", "waking"]
