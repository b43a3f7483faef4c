"""The shared store is bounded in bytes, and says so when it is full."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from contract import GenerationRequest, ProblemError
from tests.support.jobs import SharedStore, added, claimed, entries_of, new_record, pairs
from tests.support.waiting import eventually
from web.jobs.stores import redis_budget
from web.jobs.stores.redis_store import RedisStore

LARGE = json.dumps({"prompt": "春" * 10_000, "n": 2, "format": "webp", "seed": 7})


@pytest.fixture
def full_redis(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """Becomes full with the value of `maxmemory` that a test sets."""
    yield redis_client
    redis_client.config_set("maxmemory", "0")


async def ended(store: RedisStore, *jobs: str, outcome: str = "x" * 40_000) -> None:
    for job in jobs:
        await added(store, job)
        assert await store.finish(job, "completed", outcome, time.time())


async def kept(store: RedisStore, jobs: str) -> str:
    return "".join([job for job in jobs if await store.get(job)])


async def refused(store: RedisStore, job: str, **changes: str) -> tuple[str, str, int | None]:
    with pytest.raises(ProblemError) as problem:
        await store.add(new_record(job, **changes))
    return problem.value.kind.slug, str(problem.value), problem.value.problem.retry_after


async def test_the_jobs_that_ended_first_are_forgotten_where_there_are_too_many_bytes(
    shared: SharedStore, redis_client: redis.Redis
) -> None:
    store = await shared(most_bytes=200_000)
    await added(store, "o")
    await store.append("a", [("token", "x")])
    await ended(store, *"abcdefg")
    assert await kept(store, "oabcdefg") == "odefg"
    await ended(store, "h", outcome="x" * 300_000)
    assert await kept(store, "oabcdefgh") == "oh"  # the last one, however large
    await store.delete(new_record("h"))
    assert redis_client.hgetall("shangcai:ended-bytes") == {"total": "0"}


async def test_previews_and_tokens_of_ended_jobs_count(shared: SharedStore) -> None:
    store = await shared(most_bytes=100_000)
    for job in "ab":
        await added(store, job)
        await store.append(job, [("preview", "x" * 60_000)])
        await store.finish(job, "completed", "{}", time.time())
    assert await kept(store, "ab") == "b"


async def test_jobs_that_have_expired_no_longer_count(shared: SharedStore, redis_client: redis.Redis) -> None:
    store = await shared(most_bytes=200_000)
    await ended(store, "a", "b")
    redis_client.zadd("shangcai:ended-jobs", {"a": 1, "b": 1})  # long ago
    await ended(store, *"cdef")
    assert await kept(store, "cdef") == "cdef"


async def test_requests_of_open_jobs_have_a_share_of_the_bytes(shared: SharedStore, redis_client: redis.Redis) -> None:
    store = await shared(most_bytes=200_000)
    await store.add(new_record("a", request=LARGE))
    assert await store.add(new_record("a", request=LARGE)) == await store.get("a")  # counted once
    slug, detail, retry_after = await refused(store, "b", request=LARGE)
    assert (slug, retry_after) == ("overloaded", 5)
    assert "0.0477 MiB" in detail
    assert await store.open_jobs() == 1
    await store.finish("a", "cancelled", "{}", 7)
    await store.add(new_record("b", request=LARGE))
    await store.finish("b", "cancelled", "{}", 7)
    assert redis_client.hgetall("shangcai:open-bytes")["total"] == "0"


async def test_requests_that_an_older_replica_has_ended_are_recounted(
    shared: SharedStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_budget, "RECOUNT_SECONDS", 0)
    store = await shared(most_bytes=200_000)
    await store.add(new_record("a", request=LARGE))
    redis_client.zrem("shangcai:open", "a")
    await store.add(new_record("b", request=LARGE))
    assert (await refused(store, "c", request=LARGE))[0] == "overloaded"
    assert set(redis_client.hgetall("shangcai:open-bytes")) == {"total", "recount", "b"}


async def test_of_an_ended_jobs_request_stays_what_its_answers_need(shared: SharedStore) -> None:
    store = await shared()
    for job, request in (("a", LARGE), ("b", json.dumps({"prompt": "春"}))):
        await store.add(new_record(job, request=request))
        await store.finish(job, "completed", "{}", 7)
    records = [await store.get(job) for job in "ab"]
    left = [GenerationRequest.model_validate_json(record.request) for record in records if record]
    assert [(request.n, request.format, request.prompt, request.seed) for request in left] == [
        (2, "webp", "-", None),
        (None, None, "-", None),
    ]


async def test_a_job_is_counted_although_the_run_that_ended_it_is_cancelled_for_that(
    shared: SharedStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, ending = redis_budget.RedisBudget.keep, asyncio.Event()

    async def keep_late(*arguments: Any) -> None:
        ending.set()
        await asyncio.sleep(0.05)
        await keep(*arguments)

    monkeypatch.setattr(redis_budget.RedisBudget, "keep", keep_late)
    store = await shared()
    await added(store, "a")
    run = asyncio.create_task(store.finish("a", "completed", "x", time.time()))
    await ending.wait()
    run.cancel()
    await eventually(lambda: redis_client.zrange("shangcai:ended-jobs", 0, -1) == ["a"])
    assert run.cancelled()


async def test_a_redis_without_memory_takes_no_job_and_says_so(shared: SharedStore, full_redis: redis.Redis) -> None:
    store = await shared()
    await added(store, "a")
    claim = await claimed(store)
    full_redis.config_set("maxmemory", "1")
    slug, detail, retry_after = await refused(store, "b")
    assert (slug, retry_after) == ("overloaded", 5)
    assert "no memory left" in detail
    with pytest.raises(ProblemError, match="no memory left"):
        await store.append("a", [("token", "x")], claim.generation)
    with pytest.raises(ProblemError, match="no memory left"):
        await store.finish("a", "completed", "x" * 100_000, 7, claim.generation)
    assert await store.finish("a", "failed", "{}", 7, claim.generation)  # every job ends
    assert pairs(await entries_of(store, "a")) == [("error", "{}")]
    assert await store.open_jobs() == 0
    assert full_redis.zrange("shangcai:ended-jobs", 0, -1) == ["a"]  # so that it can make room


async def test_a_redis_without_memory_forgets_ended_jobs_for_what_comes(
    shared: SharedStore, full_redis: redis.Redis
) -> None:
    store = await shared(most_bytes=100_000_000)
    await added(store, "open")
    await ended(store, *"abcdef", outcome="x" * 1_000_000)
    used: int = full_redis.info("memory")["used_memory"]
    full_redis.config_set("maxmemory", str(used - 100_000))
    assert await store.finish("open", "completed", "y" * 1_000_000, 7)
    assert (await kept(store, "abcdef")).endswith("def")  # the oldest made way
    full_redis.config_set("maxmemory", str(used - 3_000_000))
    await store.add(new_record("g"))
    await store.append("g", [("token", "x")])
    full_redis.config_set("maxmemory", "1")
    assert (await refused(store, "h"))[0] == "overloaded"
    assert await kept(store, "abcdef") == ""  # but of the last one that ended
    assert await store.get("open") is not None
