"""Jobs, keys, results and events belong to their caller; for others they are not there."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

Web = Callable[..., httpx.AsyncClient]
Bearer = Callable[[str], dict[str, str]]
Slug = Callable[[httpx.Response], str]

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
    assert theirs.json() == unknown.json()
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
