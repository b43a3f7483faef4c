"""The official client in front of the application and a model server that can be held."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest
from starlette.types import ASGIApp

from tests.support.web.job_requests import LIMIT, Poet
from web.app import create_app
from web.settings import Settings

Client = Callable[..., Awaitable[openai.AsyncOpenAI]]


@pytest.fixture
def poet(stream: Callable[..., bytes]) -> Poet:
    return Poet(stream("春", "天", reasoning=("Hm", "m."), usage={"prompt_tokens": 7, "completion_tokens": 3}))


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of either store."""
    return {} if request.param == "memory" else {"store_url": request.getfixturevalue("redis_url")}


@pytest.fixture
async def client(serve: Callable[[ASGIApp], Awaitable[str]], poet: Poet) -> AsyncGenerator[Client]:
    """Starts a web in front of the poet or another one, and gives a client that does not try again by itself; keywords
    are settings, and of the client `api_key`."""
    clients: list[openai.AsyncOpenAI] = []

    async def start(model: Poet = poet, *, api_key: str = "none", **settings: Any) -> openai.AsyncOpenAI:
        models = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
        app = create_app(Settings(**{"models": models, "grace_seconds": 1, **settings}), httpx2.MockTransport(model))
        address = await serve(app)
        http_client: Any = httpx2.AsyncClient(trust_env=False, timeout=LIMIT)
        clients.append(
            openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=api_key, http_client=http_client, max_retries=0)
        )
        return clients[-1]

    yield start
    poet.finish.set()
    for one in clients:
        await one.close()
