"""Transient problems are tried again, until a deadline or a cancellation ends the job."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from contract import GenerationRequest, problems
from tests.support.jobs import (
    LIMIT,
    NewStore,
    Replica,
    ScriptedBackend,
    break_off,
    complete,
    deliver,
    ended,
    hang,
    log_of,
    problem_of,
    refuse,
    submitted,
)
from web.jobs import worker
from web.jobs.worker import MOST_ATTEMPTS


async def test_a_transient_problem_is_tried_again_with_the_same_seed(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING), refuse(problems.UNAVAILABLE), break_off(), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, record.attempts) == ("completed", 2)
    assert len(backend.runs) == 4
    assert len({run.request for run in backend.runs}) == 1
    assert "seed" in json.loads(record.request)
    assert await log_of(jobs, record) == ["running", "春", "queued", "running", "春", "result"]


async def test_a_seed_that_was_given_stays(replica: Replica) -> None:
    backend = ScriptedBackend(complete)
    jobs = await replica(backend)
    await ended(jobs, await submitted(jobs, GenerationRequest(prompt="x", seed=7)))
    await ended(jobs, await submitted(jobs))
    await ended(jobs, await submitted(jobs))
    seeds = [json.loads(run.request)["seed"] for run in backend.runs]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3


async def test_a_job_is_queued_while_it_waits_for_another_attempt(replica: Replica) -> None:
    backend = ScriptedBackend(break_off(), hang)
    jobs = await replica(backend)
    states = []
    record = await submitted(jobs)
    async with asyncio.timeout(LIMIT):
        async for entry in jobs.watch(record.id):
            states.append(json.loads(entry.data).get("state"))
            if states[-1] == "queued":
                assert (await jobs.find(record.id)).started is None
                break


async def test_a_retry_after_is_heeded(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.OVERLOADED, retry_after=1), complete)
    jobs = await replica(backend)
    begun = time.monotonic()
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert 0.5 <= time.monotonic() - begun < 3


async def test_a_job_that_breaks_off_at_every_attempt_fails(replica: Replica) -> None:
    backend = ScriptedBackend(break_off())
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, len(backend.runs)) == ("failed", MOST_ATTEMPTS)
    slug, detail = await problem_of(jobs, record)
    assert slug == "undelivered"
    assert f"begun {MOST_ATTEMPTS} times" in detail


async def test_a_job_that_never_starts_is_tried_until_its_deadline(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.UNAVAILABLE))
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs, seconds=0.3))
    assert len(backend.runs) > MOST_ATTEMPTS
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "too-late")


# Deadlines


async def test_a_deadline_ends_a_job_that_is_running(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, new_store())
    record = await ended(jobs, await submitted(jobs, seconds=0.2))
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "too-late")
    assert record.ended is not None
    assert 0 <= record.ended - record.deadline < 1
    await backend.gives_up(record)


async def test_a_deadline_ends_a_job_that_is_queued(replica: Replica) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, max_job_runs=1)
    first = await submitted(jobs)
    await backend.begun(1)
    record = await ended(jobs, await submitted(jobs, seconds=0.1))
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "too-late")
    await jobs.cancel(first.id)
    await submitted(jobs)
    await backend.begun(2)
    assert record.id not in [run.id for run in backend.runs]


async def test_a_deadline_ends_a_job_that_was_delivered(replica: Replica) -> None:
    jobs = await replica(ScriptedBackend(deliver))
    record = await ended(jobs, await submitted(jobs, seconds=0.1))
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "too-late")


async def test_an_attempt_that_would_come_after_the_deadline_is_not_waited_for(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING, retry_after=20), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs, seconds=15))
    slug, detail = await problem_of(jobs, record)
    assert (slug, len(backend.runs)) == ("too-late", 1)
    assert "Because." in detail
    assert time.time() < record.deadline


async def test_a_late_job_does_not_start_even_before_it_is_reaped(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REAP_SECONDS", 60)
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, max_job_runs=1)
    first = await submitted(jobs)
    await backend.begun(1)
    late = await submitted(jobs, seconds=0.01)
    await asyncio.sleep(0.02)
    await jobs.cancel(first.id)
    record = await ended(jobs, late)
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "too-late")
    assert [run.id for run in backend.runs] == [first.id]


async def test_a_late_job_is_found_ended_even_before_it_is_reaped(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REAP_SECONDS", 60)
    jobs = await replica(ScriptedBackend(deliver))
    await asyncio.sleep(0)  # the first look of the reaper
    record = await submitted(jobs, seconds=0.01)
    await asyncio.sleep(0.02)
    assert (await jobs.find(record.id)).state == "failed"


# Cancelling


async def test_a_job_cancelled_while_queued_never_starts(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, new_store(), max_job_runs=1)
    first = await submitted(jobs)
    await backend.begun(1)
    second, third = [await submitted(jobs) for _ in range(2)]
    record = await jobs.cancel(second.id)
    assert (record.state, (await problem_of(jobs, record))[0]) == ("cancelled", "cancelled")
    await jobs.cancel(first.id)
    await backend.begun(2)
    assert [run.id for run in backend.runs] == [first.id, third.id]
    assert backend.cancelled == [second.id, first.id]


async def test_a_job_cancelled_while_running_stops_at_once(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang, complete)
    jobs = await replica(backend, new_store(), max_job_runs=1)
    record = await submitted(jobs)
    await backend.begun(1)
    assert (await jobs.cancel(record.id)).state == "cancelled"
    await backend.gives_up(record)
    assert (await log_of(jobs, record))[-1] == "error"
    assert (await ended(jobs, await submitted(jobs))).state == "completed"  # its place is free


async def test_a_job_cancelled_between_two_attempts_gets_no_further_one(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING, retry_after=20), complete)
    jobs = await replica(backend, max_job_runs=1)
    record = await submitted(jobs)
    await backend.begun(1)
    await jobs.cancel(record.id)
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert [run.id for run in backend.runs].count(record.id) == 1


async def test_an_ended_job_cannot_be_cancelled(replica: Replica) -> None:
    backend = ScriptedBackend(complete, hang)
    jobs = await replica(backend)
    record = await submitted(jobs)
    await ended(jobs, record)
    assert (await jobs.cancel(record.id)).state == "completed"
    other = await submitted(jobs)
    assert [(await jobs.cancel(other.id)).state for _ in range(3)] == ["cancelled"] * 3
    assert backend.cancelled == [other.id]
