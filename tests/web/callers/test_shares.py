"""Over its share a caller gets a 429, and is told when to come again; what passes is told what is left."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from web.app import create_app
from web.callers.counters import MemoryCounters
from web.callers.key_file import KeyFile, KeyFileError, entry
from web.callers.redis_counters import RedisCounters
from web.callers.share import Share
from web.callers.shares import Shares
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Bearer = Callable[[str], dict[str, str]]
Slug = Callable[[httpx2.Response], str]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]

MODELS: Any = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
TWO: dict[str, Any] = {"caller_requests_per_minute": 1 / 60, "caller_requests_burst": 2}
"""Requests of each caller; the next one comes back in an hour."""
ASYNC = {"Prefer": "respond-async"}
BODY = {"prompt": "春"}


async def generate(client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **body: Any) -> httpx2.Response:
    return await client.post("/generate", json={**BODY, **body}, headers=headers)


async def test_the_fields_of_answers_and_refusals(web: Web, slug: Slug) -> None:
    client = web(**TWO)
    policy = '"requests";q=2;w=7200'
    for left in (1, 0):
        passed = await generate(client)
        assert passed.status_code == 200
        assert passed.headers["ratelimit-policy"] == policy
        assert re.fullmatch(rf'"requests";r={left};t=\d+', passed.headers["ratelimit"])
    refused = await generate(client)
    assert (refused.status_code, slug(refused)) == (429, "quota-exceeded")
    assert refused.headers["ratelimit-policy"] == policy
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert refused.json()["violated-policies"] == ["requests"]
    assert refused.json()["retry_after"] == int(refused.headers["retry-after"])


async def test_all_policies_are_named(web: Web) -> None:
    client = web(**TWO, caller_concurrency=4, caller_cost_per_minute=600)
    answer = await generate(client, max_tokens=100)
    assert answer.headers["ratelimit-policy"] == (
        '"requests";q=2;w=7200, "cost";q=600;qu="tokens";w=60, "concurrency";q=4;qu="concurrent-requests"'
    )
    assert re.fullmatch('"requests";r=1;t=3600, "cost";r=500;t=10, "concurrency";r=3', answer.headers["ratelimit"])


async def test_without_shares_nothing_is_told(web: Web) -> None:
    answer = await generate(web())
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ({"max_tokens": 100}, 100),
        ({}, 512),
        ({"kind": "image", "steps": 10, "n": 2, "size": "1024x512"}, 40),
    ],
)
async def test_a_request_costs_what_it_asks_for(web: Web, body: dict[str, Any], cost: int) -> None:
    answer = await generate(web(caller_cost_per_minute=1 / 60, caller_cost_burst=1000), **body)
    assert answer.headers["ratelimit"].startswith(f'"cost";r={1000 - cost};')


async def test_callers_do_not_share_a_share(keyed: Web, bearer: Bearer) -> None:
    client = keyed(**TWO)
    alices = [(await generate(client, bearer("alice"))).status_code for _ in range(3)]
    assert alices == [200, 200, 429]
    assert (await generate(client, bearer("bob"))).status_code == 200


@pytest.fixture
def file_with_a_share(key_file: Path) -> None:
    text = key_file.read_text()
    key_file.write_text(re.sub("(alice sha256:.*)", r"\1 requests_burst=4 concurrency=unlimited", text))


@pytest.mark.usefixtures("file_with_a_share")
async def test_a_caller_may_have_a_share_of_its_own(keyed: Web, bearer: Bearer) -> None:
    client = keyed(**TWO)
    alices = [(await generate(client, bearer("alice"))).status_code for _ in range(5)]
    assert alices == [200, 200, 200, 200, 429]
    bobs = [(await generate(client, bearer("bob"))).status_code for _ in range(3)]
    assert bobs == [200, 200, 429]


async def test_reading_takes_nothing(web: Web) -> None:
    client = web(**TWO)
    for path in ("/status", "/generations/x", "/", "/healthz", "/openapi.json"):
        for _ in range(5):
            assert (await client.get(path)).status_code != 429
    assert (await generate(client)).headers["ratelimit"].startswith('"requests";r=1;')


async def test_jobs_take_from_the_share_and_their_replays_do_not(web: Web) -> None:
    client = web(**TWO)
    keyed = ASYNC | {"Idempotency-Key": "one"}
    first = await generate(client, keyed)
    assert (first.status_code, first.headers["ratelimit"][:16]) == (202, '"requests";r=1;t')
    for _ in range(5):
        again = await generate(client, keyed)
        assert again.status_code == 202
        assert again.headers["location"] == first.headers["location"]
    assert (await generate(client, ASYNC | {"Idempotency-Key": "two"})).status_code == 202
    assert (await generate(client, ASYNC)).status_code == 429
    assert (await generate(client, keyed)).status_code == 202
    assert (await generate(client, ASYNC | {"Idempotency-Key": "three"})).status_code == 429


async def test_what_is_refused_as_it_stands_takes_nothing(web: Web) -> None:
    client = web(**TWO)
    for _ in range(3):
        assert (await generate(client, max_tokens=0)).status_code == 400
    assert (await generate(client)).headers["ratelimit"].startswith('"requests";r=1;')


async def test_the_form_of_the_page_takes_from_the_share(web: Web) -> None:
    client = web(**TWO)
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://web.test"}
    statuses = [(await client.post("/", content="prompt=x", headers=form)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


# Concurrency


class Held:
    """A model server that answers once `finish` is set."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.asked = 0

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += request.method == "POST"
        await self.finish.wait()
        return httpx2.Response(500)


async def test_so_many_are_under_way_and_a_place_is_free_again_at_its_end(
    keyed: Web, bearer: Bearer, slug: Slug
) -> None:
    held = Held()
    client = keyed(held, caller_concurrency=2)
    under_way = [asyncio.create_task(generate(client, bearer("alice"))) for _ in range(2)]
    await eventually(lambda: held.asked == 2)
    refused = await generate(client, bearer("alice"))
    assert (refused.status_code, slug(refused)) == (429, "quota-exceeded")
    assert refused.json()["violated-policies"] == ["concurrency"]
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit"] == '"concurrency";r=0'
    bobs = asyncio.create_task(generate(client, bearer("bob")))
    await eventually(lambda: held.asked == 3)
    held.finish.set()
    answers = await asyncio.gather(*under_way, bobs)
    assert 429 not in [answer.status_code for answer in answers]
    assert (await generate(client, bearer("alice"))).status_code != 429


async def test_a_client_that_leaves_gives_its_place_back(web: Web) -> None:
    held = Held()
    client = web(held, caller_concurrency=1)
    for number in range(1, 4):
        leaving = asyncio.create_task(generate(client))
        await eventually(lambda number=number: held.asked == number)  # type: ignore[misc]
        assert (await generate(client)).status_code == 429
        leaving.cancel()
        await asyncio.wait({leaving})
    held.finish.set()
    assert (await generate(client)).status_code != 429


@pytest.mark.parametrize("steps", range(8))
async def test_a_place_is_given_back_whenever_its_request_is_cancelled(steps: int) -> None:
    """Also while it is given back: a request is cancelled when its answer is whole."""
    shares = Shares(lambda _: Share(concurrency=1), MemoryCounters())

    async def request() -> None:
        async with shares.place("ann", 1):
            await asyncio.sleep(0)

    task = asyncio.create_task(request())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await shares.close()
    await request()


# Replicas


async def test_replicas_share_the_shares(opened: Opened, redis_url: str) -> None:
    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500)

    replicas = [
        await opened(create_app(Settings(models=MODELS, store_url=redis_url, **TWO), httpx2.MockTransport(answer)))
        for _ in range(3)
    ]
    statuses = [(await generate(replica, ASYNC)).status_code for replica in replicas]
    assert statuses == [202, 202, 429]


@pytest.mark.parametrize(("concurrency", "given_back"), [(math.inf, 0), (5, 1)])
async def test_a_request_is_one_command_and_one_more_gives_its_place_back(
    redis_url: str, concurrency: float, given_back: int
) -> None:
    counters = RedisCounters(redis_url)
    shares = Shares(lambda _: Share(concurrency=concurrency, requests_per_minute=600), counters)

    async def calls() -> list[int]:
        statistics = await counters._client.info("commandstats")
        return [int(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "zrem")]

    async with shares.place("ann", 1):
        pass  # now the script is loaded
    before = await calls()
    async with shares.place("ann", 1):
        pass
    assert [after - earlier for after, earlier in zip(await calls(), before, strict=True)] == [1, given_back]
    await shares.close()


# What can be said


def test_a_share_in_the_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    for text, named in {
        "concurrency=0": "concurrency must be a whole number above 0, or unlimited",
        "concurrency=1.5": "concurrency must be a whole number",
        "cost_per_minute=-1": "cost_per_minute must be a number above 0",
        "cost_per_minute=nan": "cost_per_minute must be",
        "cost_per_minute=inf": "cost_per_minute must be",
        "requests=5": "a share is written once as NAME=NUMBER, with a NAME of concurrency, requests_per_minute",
        "concurrency=1 concurrency=2": "a share is written once",
    }.items():
        path.write_text(f"{entry('ann', 'k')} {text}\n")
        with pytest.raises(KeyFileError, match="line 1") as refused:
            KeyFile(path)
        assert named in str(refused.value)
    path.write_text(f"{entry('ann', 'k')} concurrency=1\n{entry('ann', 'l')} concurrency=2\n")
    with pytest.raises(KeyFileError, match="line 2: the caller has another share in a line before"):
        KeyFile(path)


def test_a_share_is_known_without_a_key_and_the_rest_is_that_of_all(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    path.write_text(
        "ann concurrency=1 cost_per_minute=60\n" + entry("bob", "k") + "\n" + entry("bob", "l") + " requests_burst=9"
    )
    file, of_all = KeyFile(path), Share(concurrency=5, requests_per_minute=7)
    assert file.share("ann", of_all) == Share(concurrency=1, requests_per_minute=7, cost_per_minute=60)
    assert file.share("bob", of_all) == Share(concurrency=5, requests_per_minute=7, requests_burst=9)
    assert file.share("eve", of_all) == of_all
    assert file.caller("l") == "bob"


@pytest.mark.parametrize(
    "name", ["concurrency", "requests_per_minute", "requests_burst", "cost_per_minute", "cost_burst"]
)
def test_a_share_of_nothing_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Settings.model_validate({"models": MODELS, f"caller_{name}": 0})
