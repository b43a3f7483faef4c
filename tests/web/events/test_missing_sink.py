"""`DISPATCH=events` and no `K_SINK`, as in the first seconds of a deployment: web starts, and keeps what there is."""

from __future__ import annotations

from typing import Any

import pytest

from contract.cloudevents import COMPLETED, REQUESTED
from tests.support.events import (
    ASYNC,
    LIVE,
    App,
    Front,
    Opened,
    Sink,
    Slug,
    about,
    deliver,
    ended,
    job_of,
    poem,
    submit,
)
from tests.support.jobs import new_record
from tests.support.waiting import eventually
from web.app import create_app
from web.jobs.background_loops import BackgroundLoops
from web.jobs.stores.redis_store import RedisStore
from web.settings import Settings

NEEDED = "Requests go as events, and K_SINK, their address, is not set."
HEADERS: list[dict[str, str]] = [{}, LIVE, ASYNC, {"Prefer": "wait=5"}, {"Idempotency-Key": "order-1"}]


async def test_it_is_alive_and_not_ready_and_says_what_is_missing(front: Front, slug: Slug) -> None:
    client = await front(k_sink=None)
    assert (await client.get("/healthz")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, slug(answer), answer.json()["detail"]) == (503, "unavailable", NEEDED)


@pytest.mark.parametrize("value", [None, ""])
async def test_an_inbox_needs_no_sink(front: Front, value: str | None) -> None:
    client = await front(k_sink=value, routes="inbox")
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("headers", HEADERS)
async def test_who_asks_meanwhile_is_told_when_to_come_again(front: Front, slug: Slug, headers: dict[str, str]) -> None:
    client = await front(k_sink=None)
    answer = await client.post("/generate", json={"prompt": "春"}, headers=headers)
    assert (answer.status_code, slug(answer), answer.json()["detail"]) == (503, "unavailable", NEEDED)
    assert int(answer.headers["retry-after"]) == 5


async def test_jobs_wait_for_a_replica_that_has_a_sink(opened: Opened, app: App, redis_url: str, sink: Sink) -> None:
    client = await opened(app(k_sink=None, store_url=redis_url))
    other = RedisStore(redis_url, 60, 1_000, 5)
    await other.add(new_record("a"))
    await other.close()
    document = await job_of(client, "a")
    assert (document["state"], document["position"]) == ("queued", 0)
    sink.replies()
    second = await opened(app(store_url=redis_url))
    assert (await ended(second, "a"))["state"] == "completed"
    assert (await job_of(client, "a"))["result"]["text"] == "春眠不觉晓"
    [request] = sink.of(REQUESTED)
    assert request.subject == "a"


async def test_a_job_that_is_there_is_found_by_its_key_told_about_and_cancelled(
    opened: Opened, app: App, redis_url: str, sink: Sink
) -> None:
    ready = await opened(app(store_url=redis_url))
    key = {"Idempotency-Key": "order-1"}
    job = await submit(ready, key)
    done = await submit(ready)
    await eventually(lambda: len(sink.of(REQUESTED)) == 2)
    client = await opened(app(k_sink=None, store_url=redis_url))
    assert await submit(client, key) == job
    assert (await deliver(client, about(done, COMPLETED, poem(done)))).status_code == 204
    assert (await job_of(ready, done))["state"] == "completed"
    cancelled = await client.delete(f"/generations/{job}")  # nobody can be told, and it ends all the same
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize("settings", [{"k_sink": None}, {"routes": "inbox"}])
async def test_it_claims_no_jobs(opened: Opened, settings: dict[str, Any]) -> None:
    """It could only fail with them. An inbox leaves them to web: no request would keep it running meanwhile."""
    background = BackgroundLoops()
    models = {"poet": {"kind": "text", "url": "http://poet.test"}}
    await opened(create_app(Settings(models=models, dispatch="events", **settings), background=background))
    names = {loop.name for loop in background}
    assert not [name for name in names if "claiming" in name or "spare" in name]
    assert "the search for late jobs" in names
