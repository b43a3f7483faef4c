"""A replica that goes: running jobs end on it within its grace, and all others are left to other replicas at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from contract import problems
from tests.support.jobs import (
    KEEP_SECONDS,
    LIMIT,
    NewStore,
    Replica,
    ScriptedBackend,
    complete,
    ended,
    hang,
    log_of,
    refuse,
    submitted,
)
from tests.support.waiting import eventually
from web.jobs import worker
from web.jobs.journal import JobJournal
from web.jobs.record import JobRecord
from web.jobs.stores import redis_queue
from web.jobs.stores.redis_store import RedisStore


async def test_running_jobs_end_before_a_replica_closes(replica: Replica, new_store: NewStore) -> None:
    gate = asyncio.Event()

    async def wait_then_complete(record: JobRecord, journal: JobJournal) -> None:
        await gate.wait()
        await complete(record, journal)

    store = new_store()
    backend = ScriptedBackend(wait_then_complete)
    jobs = await replica(backend, store, max_job_runs=1)
    running, queued = [await submitted(jobs) for _ in range(2)]
    await backend.begun(1)
    closing = asyncio.create_task(jobs.close(LIMIT))
    await asyncio.sleep(0.05)
    assert not closing.done()
    gate.set()
    await asyncio.wait_for(closing, LIMIT)
    states = [record.state for job in (running.id, queued.id) if (record := await store.get(job))]
    assert states == ["completed", "queued"]
    await store.close()


async def test_a_silent_store_does_not_hold_up_close(
    replica: Replica, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RELEASE_SECONDS", 0.1)
    backend, store, silence = ScriptedBackend(hang), new_store(), asyncio.Event()
    jobs = await replica(backend, store)
    await submitted(jobs)
    await backend.begun(1)

    async def say_nothing(_job: str) -> None:
        await silence.wait()

    with monkeypatch.context() as patch:
        patch.setattr(store, "get", say_nothing)
        await asyncio.wait_for(jobs.close(0), LIMIT / 2)
    silence.set()


async def test_a_job_that_hangs_does_not_hold_up_close(replica: Replica) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend)
    record = await submitted(jobs)
    await backend.begun(1)
    begun = time.monotonic()
    await asyncio.wait_for(jobs.close(1), LIMIT)
    assert time.monotonic() - begun >= 0.9
    assert backend.given_up == [record.id]


async def test_jobs_that_a_closing_replica_releases_are_claimed_at_once(replica: Replica, redis_url: str) -> None:
    backend = ScriptedBackend(hang, hang, complete)
    first = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5), max_job_runs=2)
    records = [await submitted(first) for _ in range(3)]
    await backend.begun(2)
    await first.close(0.05)
    assert sorted(backend.given_up) == sorted(record.id for record in records[:2])
    second = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    found = [await ended(second, record) for record in records]
    assert [(record.state, record.attempts) for record in found] == [("completed", 1)] * 3  # to be released costs none
    assert await log_of(second, records[0]) == ["running", "春", "queued", "running", "春", "result"]


async def test_who_can_find_a_job_again_is_answered_before_the_replica_ends(replica: Replica, redis_url: str) -> None:
    jobs = await replica(ScriptedBackend(hang), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5), grace_seconds=1)
    record = await submitted(jobs)
    waiting = asyncio.create_task(jobs.wait(record.id, LIMIT, found_again=True))
    without = asyncio.create_task(jobs.wait(record.id, LIMIT))
    jobs.drain()
    async with asyncio.timeout(LIMIT):
        assert (await waiting).ended is None
    assert not without.done()
    await jobs.cancel(record.id)
    assert (await without).state == "cancelled"


async def test_a_draining_replica_claims_nothing_more(replica: Replica, redis_url: str) -> None:
    backend = ScriptedBackend(complete)
    first = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    first.drain()
    record = await submitted(first)  # which it takes still
    other = ScriptedBackend(complete)
    second = await replica(other, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    assert (await ended(second, record)).state == "completed"
    assert (backend.runs, len(other.runs)) == ([], 1)


async def test_jobs_that_wait_for_another_attempt_are_let_go_at_once(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 30)
    backend = ScriptedBackend(refuse(problems.UNAVAILABLE))
    first = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    record = await submitted(first)
    await backend.begun(1)

    async def counted() -> bool:
        return (await first.find(record.id)).attempts == 1

    await eventually(counted, "the attempt has ended")
    first.drain()
    second = await replica(ScriptedBackend(complete), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    record = await ended(second, record)
    assert (record.state, record.attempts) == ("completed", 2)


async def test_claims_are_renewed_until_the_last_run_has_ended(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.05)
    backend, other = ScriptedBackend(hang), ScriptedBackend(complete)
    first = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    record = await submitted(first)
    await backend.begun(1)
    await replica(other, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    closing = asyncio.create_task(first.close(1))
    await asyncio.sleep(0.8)  # more than two leases
    assert (closing.done(), other.runs) == (False, [])
    await closing
    assert backend.given_up == [record.id]
    await other.begun(1)
