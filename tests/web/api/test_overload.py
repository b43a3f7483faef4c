"""What web lets through to one model, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from contract import ProblemError
from web.api.concurrency_limit import ConcurrencyLimit

Web = Callable[..., httpx.AsyncClient]
Slug = Callable[[httpx.Response], str]


def test_a_gate_lets_no_more_through_than_it_has_places() -> None:
    gate = ConcurrencyLimit(2)
    with gate.passing(), gate.passing():
        with pytest.raises(ProblemError) as refused, gate.passing():
            pass
        assert refused.value.kind.slug == "overloaded"
        assert refused.value.headers == {"Retry-After": "1"}
    assert gate.in_flight == 0


def test_a_place_is_free_again_however_the_request_ended() -> None:
    gate = ConcurrencyLimit(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.passing():
            raise ZeroDivisionError
    with gate.passing():
        assert gate.in_flight == 1


async def test_what_is_over_the_bound_is_told_when_to_come_again(web: Web, slug: Slug) -> None:
    held = asyncio.Event()
    arrived = asyncio.Event()

    async def hold(_: httpx.Request) -> httpx.Response:
        arrived.set()
        await held.wait()
        return httpx.Response(500)

    client = web(hold, max_in_flight=1)
    first = asyncio.create_task(client.post("/generate", json={"prompt": "x"}))
    await arrived.wait()
    refused = await client.post("/generate", json={"prompt": "x"})
    held.set()
    await first
    assert (refused.status_code, slug(refused)) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("given", "passed_on"), [({}, "300"), ({"X-Request-Timeout": "2.5"}, "2.5")])
async def test_the_time_a_request_is_given_is_passed_on(web: Web, given: dict[str, str], passed_on: str) -> None:
    seen: list[Any] = []

    def see(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["x-request-timeout"])
        return httpx.Response(500)

    await web(see).post("/generate", json={"prompt": "x"}, headers=given)
    assert seen == [passed_on]


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", ""])
async def test_a_senseless_time_is_refused_by_name(web: Web, given: str) -> None:
    client = web(lambda _: httpx.Response(500))
    response = await client.post("/generate", json={"prompt": "x"}, headers={"X-Request-Timeout": given})
    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == ["X-Request-Timeout"]
