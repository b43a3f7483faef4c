"""Jobs that are kept longer or shorter than others, with what they were asked with."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from contract import ProblemError
from tests.support.jobs import MakeStore, SharedStore, new_record
from tests.support.waiting import eventually
from web.jobs.record import JobRecord
from web.jobs.store import JobStore


async def end(store: JobStore, record: JobRecord, outcome: str = "{}") -> None:
    await store.add(record, queued=False)
    assert await store.finish(record.id, "completed", outcome, await store.now())


async def test_a_job_keeps_what_it_was_asked_with_beyond_its_end(make: MakeStore) -> None:
    store = await make()
    await end(store, new_record("a", response='{"春": 1}', keep_seconds=600, own_limit=True))
    found = await store.get("a")
    assert found is not None
    assert (found.response, found.keep_seconds, found.own_limit) == ('{"春": 1}', 600, True)
    assert "春" not in found.request


async def test_each_is_forgotten_when_its_own_time_is_over(make: MakeStore) -> None:
    store = await make(keep_seconds=600)
    await end(store, new_record("long"))
    await end(store, new_record("short", keep_seconds=0.01))

    async def forgotten() -> bool:
        await store.overdue(await store.now())
        return await store.get("short") is None

    await eventually(forgotten, "the short one is forgotten")
    assert await store.get("long") is not None


async def test_redis_keeps_the_job_and_its_log_for_its_own_time(shared: SharedStore, redis_client: Any) -> None:
    store = await shared(keep_seconds=100)
    await end(store, new_record("a", keep_seconds=9_000))
    for key in ("shangcai:job:a", "shangcai:log:a"):
        assert 8_900 < redis_client.ttl(key) <= 9_001


async def test_where_there_are_too_many_bytes_those_go_first_that_expire_first(
    shared: SharedStore, redis_client: redis.Redis
) -> None:
    store = await shared(keep_seconds=100, most_bytes=100_000)
    for job, seconds in (("long", 9_000.0), ("usual", None), ("short", 1.0)):
        await end(store, new_record(job, keep_seconds=seconds), "x" * 60_000)
    assert await store.get("short") is not None, "the one that ended last"
    assert redis_client.zrange("shangcai:ended-jobs", 0, -1) == ["short"]


async def test_what_a_job_was_asked_with_counts_as_its_request(make: MakeStore) -> None:
    store = await make()
    await store.add(new_record("a", response="x" * 240_000))
    with pytest.raises(ProblemError, match="The requests of queued and running generations take all"):
        await store.add(new_record("b", response="x" * 20_000))
    assert await store.finish("a", "failed", "{}", await store.now())
    await store.add(new_record("b", response="x" * 20_000))
