"""`GET /healthz` says whether this process should live on, `GET /readyz` whether requests should come to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from web.api.health import PATHS
from web.app import create_app
from web.callers.authentication import OPEN_PATHS
from web.jobs import background_loops
from web.jobs.background_loops import BackgroundLoops
from web.settings import Settings
from wire.drain import Drain

Slug = Callable[[httpx2.Response], str]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]

READY = (200, {"status": "ready"})
ALIVE = (200, {"status": "ok"})


def state(answer: httpx2.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


@pytest.fixture
async def background() -> AsyncGenerator[BackgroundLoops]:
    loops = BackgroundLoops()
    yield loops
    await loops.close(*loops)


@pytest.fixture
def unanswered() -> httpx2.MockTransport:
    """Model servers that nobody is to ask."""

    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(f"{request.url} was asked")

    return httpx2.MockTransport(refuse)


def app(
    routes: str, background: BackgroundLoops, transport: httpx2.MockTransport, drain: Drain | None = None
) -> ASGIApp:
    return create_app(Settings(models={"poet": "http://poet.test"}, routes=routes), transport, drain, background)


def test_whoever_probes_is_no_caller() -> None:
    assert set(PATHS) <= OPEN_PATHS


@pytest.mark.parametrize("routes", ["all", "inbox"])
async def test_a_new_server_is_alive_and_ready_and_asks_nobody(
    opened: Opened, background: BackgroundLoops, unanswered: httpx2.MockTransport, routes: str
) -> None:
    client = await opened(app(routes, background, unanswered))
    assert state(await client.get("/healthz")) == ALIVE
    assert state(await client.get("/readyz")) == READY
    assert (await client.head("/readyz")).status_code == 200


@pytest.mark.parametrize("routes", ["all", "inbox"])
async def test_a_server_that_drains_is_alive_and_not_ready(
    opened: Opened, slug: Slug, background: BackgroundLoops, unanswered: httpx2.MockTransport, routes: str
) -> None:
    drain = Drain()
    client = await opened(app(routes, background, unanswered, drain))
    drain.begin()
    answer = await client.get("/readyz")
    assert (answer.status_code, slug(answer), answer.json()["retry_after"]) == (503, "unavailable", 1)
    assert answer.json()["detail"] == "The server is shutting down."
    assert state(await client.get("/healthz")) == ALIVE


async def test_a_loop_that_is_stuck_is_named_by_both(
    opened: Opened, slug: Slug, background: BackgroundLoops, unanswered: httpx2.MockTransport
) -> None:
    client = await opened(app("all", background, unanswered))
    background.stalled_seconds = -1
    for path in PATHS:
        answer = await client.get(path)
        assert (answer.status_code, slug(answer)) == (503, "stalled")
        assert "the claiming of jobs for poet has not gone round for 0 s" in answer.json()["detail"]


async def test_a_loop_that_fails_again_and_again_is_named_until_it_goes_round(
    opened: Opened,
    slug: Slug,
    background: BackgroundLoops,
    unanswered: httpx2.MockTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background_loops, "FIRST_PAUSE_SECONDS", 0.0)
    client = await opened(app("all", background, unanswered))
    good_turns = asyncio.Semaphore(0)
    left = background_loops.FAILING

    async def turn() -> None:
        nonlocal left
        if left:
            left -= 1
            raise KeyError("a mistake")
        await good_turns.acquire()

    loop = background.start("the watering of flowers", turn)
    await eventually(lambda: loop.failures == background_loops.FAILING)
    answer = await client.get("/readyz")
    assert (answer.status_code, slug(answer)) == (503, "stalled")
    assert answer.json()["detail"] == "the watering of flowers has failed 5 times in a row."
    assert state(await client.get("/healthz")) == ALIVE
    good_turns.release()
    await eventually(lambda: loop.failures == 0)
    assert state(await client.get("/readyz")) == READY
