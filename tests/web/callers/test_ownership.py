"""Jobs, keys, results and events belong to their caller; for others they are not there."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from contract import JobList
from tests.support.wire.instances import without_instance

Web = Callable[..., httpx2.AsyncClient]
Bearer = Callable[[str], dict[str, str]]
Slug = Callable[[httpx2.Response], str]

ASYNC = {"Prefer": "respond-async"}


@pytest.mark.parametrize(
    ("method", "accept"),
    [("GET", "application/json"), ("GET", "text/event-stream"), ("GET", "image/png"), ("DELETE", "*/*")],
)
async def test_a_job_of_somebody_else_is_not_there(
    keyed: Web, bearer: Bearer, slug: Slug, method: str, accept: str
) -> None:
    client = keyed()
    made = await client.post("/generate", json={"prompt": "x"}, headers=bearer("alice") | ASYNC)
    job = made.headers["location"]
    theirs = await client.request(method, job, headers=bearer("bob") | {"Accept": accept})
    unknown = await client.request(method, "/generations/unknown", headers=bearer("bob") | {"Accept": accept})
    assert slug(theirs) == "not-found"
    assert without_instance(theirs) == without_instance(unknown)
    own = await client.get(job, headers=bearer("alice"))
    assert own.json()["state"] == "queued", "it was not cancelled"


async def test_a_key_of_two_callers_makes_two_jobs(keyed: Web, bearer: Bearer) -> None:
    client = keyed()
    order = ASYNC | {"Idempotency-Key": "order-1"}
    made = [
        (await client.post("/generate", json={"prompt": name}, headers=bearer(name) | order)).headers["location"]
        for name in ("alice", "bob", "alice")
    ]
    assert made[0] == made[2] != made[1]


# The list


@pytest.fixture
async def alice(keyed: Web, bearer: Bearer) -> httpx2.AsyncClient:
    """Her client, after she has made five jobs and bob one."""
    client = keyed()
    for number in range(6):
        caller = "bob" if number == 2 else "alice"
        await client.post("/generate", json={"prompt": str(number)}, headers=bearer(caller) | ASYNC)
    client.headers.update(bearer("alice"))
    return client


async def listed(client: httpx2.AsyncClient, query: str = "") -> JobList:
    answer = await client.get(f"/generations{query}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    return JobList.model_validate_json(answer.content)


async def test_ones_own_jobs_page_by_page(alice: httpx2.AsyncClient, bearer: Bearer) -> None:
    whole = await listed(alice)
    assert (len(whole.generations), whole.next) == (5, None)
    assert whole.generations == sorted(whole.generations, key=lambda job: job.created_at, reverse=True)
    first = await listed(alice, "?limit=3")
    second = await listed(alice, f"?limit=3&after={first.next}")
    assert first.generations + second.generations == whole.generations
    assert second.next is None
    assert (await listed(alice, "?limit=5")).next is None
    alice.headers.update(bearer("bob"))
    assert len((await listed(alice)).generations) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=x", "limit"),
        ("?limit=", "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?after=", "after"),
        ("?after=x", "after"),
        ("?after=%00", "after"),
        ("?before=x", "before"),
    ],
)
async def test_a_query_that_cannot_be_is_named(keyed: Web, bearer: Bearer, slug: Slug, query: str, field: str) -> None:
    answer = await keyed().get(f"/generations{query}", headers=bearer("alice"))
    assert slug(answer) == "invalid-field"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_where_everybody_is_one_caller_nobody_sees_the_jobs_of_all(web: Web, slug: Slug) -> None:
    answer = await web(callers="off").get("/generations")
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
