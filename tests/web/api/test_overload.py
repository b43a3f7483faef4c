"""The limit of requests on their way to one model, and their time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]


async def test_a_request_beyond_the_limit_gets_a_retry_after(web: Web, slug: Slug) -> None:
    held = asyncio.Event()
    arrived = asyncio.Event()

    async def hold(_: httpx2.Request) -> httpx2.Response:
        arrived.set()
        await held.wait()
        return httpx2.Response(500)

    client = web(hold, max_in_flight=1, max_waiting=0)
    first = asyncio.create_task(client.post("/generate", json={"prompt": "x"}))
    await arrived.wait()
    refused = await client.post("/generate", json={"prompt": "x"})
    held.set()
    await first
    assert (refused.status_code, slug(refused)) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("given", "passed_on"), [({}, "300"), ({"X-Request-Timeout": "2.5"}, "2.5")])
async def test_the_time_limit_is_passed_on_to_the_model_server(web: Web, given: dict[str, str], passed_on: str) -> None:
    seen: list[Any] = []

    def see(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["x-request-timeout"])
        return httpx2.Response(500)

    await web(see).post("/generate", json={"prompt": "x"}, headers=given)
    assert seen == [passed_on]


async def test_a_model_servers_deadline_is_not_before_webs(web: Web) -> None:
    """Or it would be logged as a failure of the model server's, whoever has set it."""
    loop = asyncio.get_running_loop()

    def server(request: httpx2.Request) -> httpx2.Response:
        deadlines.append(loop.time() + float(request.headers["x-request-timeout"]))
        return httpx2.Response(500)

    deadlines: list[float] = []
    client = web(server)
    for seconds in [10 + number / 2_000 for number in range(20)]:
        asked = loop.time()
        await client.post("/generate", json={"prompt": "x"}, headers={"X-Request-Timeout": str(seconds)})
        assert deadlines[-1] >= asked + seconds


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", ""])
async def test_an_invalid_time_limit_is_refused(web: Web, given: str) -> None:
    client = web(lambda _: httpx2.Response(500))
    response = await client.post("/generate", json={"prompt": "x"}, headers={"X-Request-Timeout": given})
    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == ["X-Request-Timeout"]
