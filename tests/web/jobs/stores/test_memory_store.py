"""The store in memory is bounded."""

from __future__ import annotations

import asyncio

from tests.support.jobs import (
    KEEP_SECONDS,
    added,
    new_record,
)
from web.jobs.stores.memory_store import MemoryStore


async def test_ended_jobs_are_forgotten_earlier_where_memory_is_full() -> None:
    store = MemoryStore(KEEP_SECONDS, 2_500, 1_000)
    await store.add(new_record("open", request="x" * 5_000))
    await store.append("open", [("token", "x" * 5_000)])
    for job in "abc":
        await added(store, job)
        await store.append(job, [("token", "x" * 500)])
        await store.finish(job, "completed", "x" * 500, 7)
    assert [job for job in ("open", *"abc") if await store.get(job)] == ["open", "b", "c"]


async def test_requests_count_as_memory_too() -> None:
    store = MemoryStore(KEEP_SECONDS, 2_500, 1_000)
    for job in "abc":
        await store.add(new_record(job, request="x" * 1_000))
        await store.finish(job, "failed", "{}", 7)
    assert [job for job in "abc" if await store.get(job)] == ["b", "c"]


async def test_the_job_that_ended_last_is_kept_however_large_it_is() -> None:
    """Somebody is waiting for it."""
    store = MemoryStore(KEEP_SECONDS, 100, 1_000)
    for job in "ab":
        await added(store, job)
        waiting = asyncio.create_task(store.wait_for_end(job))
        await store.finish(job, "completed", "x" * 1_000, 7)
        await waiting
        assert await store.get(job) is not None
    assert await store.get("a") is None
