"""Replicas close, are killed, and lose their store: no job is lost, none runs twice."""

from __future__ import annotations

import asyncio
import time

import pytest

from contract import ProblemError, TokenEvent, problems
from tests.support.jobs import (
    KEEP_SECONDS,
    FailingStore,
    Replica,
    ScriptedBackend,
    begin,
    complete,
    ended,
    hang,
    log_of,
    new_record,
    problem_of,
    result,
    submitted,
)
from tests.support.waiting import eventually
from web.jobs import worker
from web.jobs.journal import JobJournal
from web.jobs.record import JobRecord
from web.jobs.store import ClaimLost
from web.jobs.stores import redis_queue
from web.jobs.stores.redis_store import RedisStore
from web.jobs.worker import MOST_ATTEMPTS


async def test_a_job_whose_replica_was_killed_is_claimed_by_another(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    dead = RedisStore(redis_url, KEEP_SECONDS, 1_000, 5)
    now = time.time()
    record = await dead.add(new_record())
    await dead.claim("poet")
    await dead.start("a", now)
    await dead.append("a", [("token", '{"text": "half"}')])
    await dead.close()
    jobs = await replica(ScriptedBackend(complete), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    assert (await ended(jobs, record)).state == "completed"
    assert await log_of(jobs, record) == ["half", "queued", "running", "春", "result"]


async def test_a_run_that_was_taken_over_writes_no_more(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.05)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    goes_on, ends = asyncio.Event(), asyncio.Event()
    refused: list[ClaimLost] = []

    async def stall(record: JobRecord, journal: JobJournal) -> None:
        await begin(record, journal)
        await goes_on.wait()
        for write in (journal.append(record.id, [TokenEvent(text="late")]), journal.end(record.id, result(record))):
            with pytest.raises(ClaimLost) as lost:
                await write
            refused.append(lost.value)
        raise refused[0]

    async def finish_later(record: JobRecord, journal: JobJournal) -> None:
        await begin(record, journal)
        await ends.wait()
        await journal.end(record.id, result(record))

    first, second = ScriptedBackend(stall), ScriptedBackend(finish_later)
    jobs = await replica(first, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5), max_job_runs=1)
    record = await submitted(jobs)
    await first.begun(1)
    await replica(second, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5), max_job_runs=1)
    await second.begun(1)
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 60)
    goes_on.set()
    await eventually(lambda: len(refused) == 2)
    ends.set()
    assert (await ended(jobs, record)).state == "completed"
    assert await log_of(jobs, record) == ["running", "春", "queued", "running", "春", "result"]


async def test_a_job_that_kills_every_replica_fails(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.1)
    store = RedisStore(redis_url, KEEP_SECONDS, 1_000, 5)
    now = time.time()
    record = await store.add(new_record())
    for _ in range(MOST_ATTEMPTS):
        await store.reset("a")
        await store.start("a", now)
    backend = ScriptedBackend(complete)
    jobs = await replica(backend, store)
    assert (await problem_of(jobs, await ended(jobs, record)))[0] == "undelivered"
    assert backend.runs == []


async def test_a_replica_does_not_run_a_job_twice_when_its_lease_runs_out(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease has run out while the store could not be reached."""
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)

    async def take_long(record: JobRecord, journal: JobJournal) -> None:
        await asyncio.sleep(0.5)
        await complete(record, journal)

    backend = ScriptedBackend(take_long)
    jobs = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert len(backend.runs) == 1


async def test_claims_are_renewed(replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.05)
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    other = await replica(backend, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    record = await submitted(jobs)
    await backend.begun(1)
    await asyncio.sleep(0.8)
    assert len(backend.runs) == 1
    await other.cancel(record.id)  # on another replica than the one that runs it
    await backend.gives_up(record)


def unreachable() -> ProblemError:
    return ProblemError(problems.UNAVAILABLE, "The store cannot be reached.", retry_after=1)


async def test_the_worker_survives_an_outage_of_the_store(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.02)
    store = FailingStore(unreachable, claim=2, overdue=2, renew=2)
    backend = ScriptedBackend(complete, hang)
    jobs = await replica(backend, store)
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert (await ended(jobs, await submitted(jobs, seconds=0.2))).state == "failed"
    assert set(store.left.values()) == {0}


async def test_an_outage_while_a_job_is_running_does_not_lose_it(replica: Replica) -> None:
    store = FailingStore(unreachable, wait_for_end=1)
    backend = ScriptedBackend(hang, complete)
    jobs = await replica(backend, store)
    record = await submitted(jobs)
    await backend.begun(2)
    assert (await ended(jobs, record)).state == "completed"


async def test_one_fast_clock_expires_nobodys_job(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines go by the clock of Redis."""
    sane = await replica(ScriptedBackend(hang), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    kept = await submitted(sane)
    fast_time = time.time
    monkeypatch.setattr(time, "time", lambda: fast_time() + 7_200)
    fast = await replica(ScriptedBackend(hang), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    late = await submitted(fast, seconds=0.3)
    assert abs(late.created - kept.created) < 3_600
    assert (await ended(fast, late)).state == "failed"  # the search for late jobs has gone round
    assert (await fast.find(kept.id)).ended is None
