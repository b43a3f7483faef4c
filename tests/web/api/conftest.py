"""A web in front of a model server that can be held."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.web.job_requests import LIMIT, Front, Poet
from web.app import create_app
from web.settings import Settings

Handler = Callable[[httpx2.Request], httpx2.Response]
Serve = Callable[[ASGIApp], Awaitable[str]]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]


@pytest.fixture
def poet(stream: Callable[..., bytes]) -> Poet:
    return Poet(stream("春", "天"))


@pytest.fixture
async def front(serve: Serve, opened: Opened, poet: Poet, painter: Handler) -> AsyncGenerator[Front]:
    """Starts a web in front of the poet and the painter, and gives a client of it. The client needs `sockets` to leave
    early or to read events before the end."""
    clients: list[httpx2.AsyncClient] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        return painter(request) if request.url.host == "painter.test" else poet(request)

    async def start(*, sockets: bool = False, **settings: Any) -> httpx2.AsyncClient:
        painter = {"url": "http://painter.test", "kind": "image"}
        models = {"poet": "http://poet.test", "novelist": "http://novelist.test", "painter": painter}
        app = create_app(Settings(**{"models": models, "grace_seconds": 1, **settings}), httpx2.MockTransport(answer))
        if not sockets:
            return await opened(app)
        clients.append(httpx2.AsyncClient(base_url=await serve(app), timeout=LIMIT, trust_env=False))
        return clients[-1]

    yield start
    poet.finish.set()
    for client in clients:
        await client.aclose()
