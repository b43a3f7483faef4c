"""What both stores promise of each caller's list of jobs, and of deleting one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis

from contract.callers import DEFAULT_CALLER
from tests.support.jobs import SharedStore, entries_of, new_record
from web.jobs.record import JobRecord
from web.jobs.store import JobStore
from web.jobs.stores import redis_listing
from web.jobs.stores.memory_store import MemoryStore

NOW = 4e9
"""Not the moment of the import: a run takes longer than a job here is kept, and Redis goes by its own clock."""


def own(job: str, seconds: float = 0, caller: str = "alice", **fields: Any) -> JobRecord:
    """A job of a caller that was made so many seconds from now."""
    return new_record(id=job, created=NOW + seconds, deadline=NOW + 600, caller=caller, **fields)


async def listed(store: JobStore, caller: str = "alice", limit: int = 10, before: str | None = None) -> list[str]:
    return [job.id for job in await store.jobs_of(caller, limit, before)]


async def test_ones_own_jobs_the_newest_first(store: JobStore) -> None:
    for job in (own("b", 2), own("a", 1), own("of bob", 3, "bob"), own("c", 3)):
        await store.add(job)
    await store.add(own("c", 4))  # is there already
    assert await listed(store) == ["c", "b", "a"]
    assert await listed(store, "bob") == ["of bob"]
    assert await listed(store, "carol") == []


async def test_pages_hold_every_job_once(store: JobStore) -> None:
    jobs = [own(f"{number:02}", number // 3) for number in range(20)]  # three at a time in the same moment
    for job in jobs:
        await store.add(job)
    seen: list[JobRecord] = []
    while page := await store.jobs_of("alice", 3, seen[-1].cursor if seen else None):
        seen += page
        await store.add(own(f"later {len(seen)}", 100))  # moves no page
        if len(seen) == 6:
            await store.finish(seen[-1].id, "completed", "{}", NOW)
            await store.delete(seen[-1])  # neither does a cursor that is gone
    assert [job.id for job in seen] == [job.id for job in reversed(jobs)]


async def test_a_list_says_how_far_each_job_is_and_holds_nothing_large(store: JobStore) -> None:
    await store.add(own("a"))
    await store.start("a", NOW + 1)
    await store.finish("a", "completed", '{"much": "text"}', NOW + 2)
    [job] = await store.jobs_of("alice", 1)
    assert (job.state, job.started, job.ended, job.caller) == ("completed", NOW + 1, NOW + 2, "alice")
    assert (job.request, job.outcome) == ("", None)
    whole = await store.get("a")
    assert whole is not None
    assert whole.outcome


async def test_where_callers_are_not_told_apart_nothing_is_listed(store: JobStore) -> None:
    await store.add(own("a", caller=DEFAULT_CALLER))
    assert await listed(store, DEFAULT_CALLER) == []


async def test_a_deleted_job_is_gone_with_its_log(store: JobStore) -> None:
    for job in (own("a"), own("b")):
        await store.add(job)
        await store.append(job.id, [("token", "{}")])
        await store.finish(job.id, "completed", "{}", NOW)
    await store.delete(own("a"))
    assert await store.get("a") is None
    assert await entries_of(store, "a") == []
    assert await listed(store) == ["b"]
    await store.delete(own("a"))
    again = own("a", digest="another")
    assert await store.add(again) == again, "an Idempotency-Key is free again"


async def test_memory_forgets_the_list_with_the_jobs() -> None:
    store = MemoryStore(keep_seconds=10, most_bytes=1_000_000, log_entries=100)
    await store.add(own("a"))
    await store.finish("a", "completed", "{}", NOW)
    await store.overdue(NOW + 11)
    assert await listed(store) == []
    assert not store._listed


async def test_a_list_in_redis_ends_with_the_last_job_and_has_a_most(
    shared: SharedStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_listing, "MOST_LISTED", 3)
    store = await shared()
    await store.add(replace(own("long"), deadline=NOW + 5_000))
    for number in range(4):
        await store.add(own(str(number), number + 1))
    assert await listed(store) == ["3", "2", "1"]
    assert 4_900 < redis_client.ttl("shangcai:caller:alice") < 5_200
    redis_client.delete("shangcai:job:2")  # as if it had expired
    assert await listed(store, limit=2) == ["3", "1"]
    assert redis_client.zcard("shangcai:caller:alice") == 2
