"""Transient problems are tried again, until a deadline or a cancellation ends the job."""

from __future__ import annotations

import asyncio
import json
import random
import time

import pytest

from contract import GenerationRequest, ProblemType, problems
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
from web.jobs.journal import JobJournal
from web.jobs.record import JobRecord
from web.jobs.worker import MOST_ATTEMPTS


async def test_a_transient_problem_is_tried_again_with_the_same_seed(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING), refuse(problems.UNAVAILABLE), break_off(), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, record.attempts) == ("completed", 3)  # but for LOADING
    assert len(backend.runs) == 4
    assert len({run.request for run in backend.runs}) == 1
    assert "seed" in json.loads(backend.runs[0].request)
    waits = ["queued", "queued"]
    assert await log_of(jobs, record) == [*waits, "running", "春", "queued", "running", "春", "result"]


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
    assert time.monotonic() - begun >= 0.5


async def test_a_job_that_breaks_off_at_every_attempt_fails(replica: Replica) -> None:
    backend = ScriptedBackend(break_off())
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, len(backend.runs)) == ("failed", MOST_ATTEMPTS)
    slug, detail = await problem_of(jobs, record)
    assert slug == "undelivered"
    assert f"tried {MOST_ATTEMPTS} times" in detail


async def test_a_job_whose_model_cannot_be_reached_is_given_up(replica: Replica, new_store: NewStore) -> None:
    """Though it never began: a wrong address would be asked for as long as the job may take."""
    backend = ScriptedBackend(refuse(problems.UNAVAILABLE))
    jobs = await replica(backend, new_store())
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, len(backend.runs)) == ("failed", MOST_ATTEMPTS)
    assert await problem_of(jobs, record) == (
        "undelivered",
        f"It was tried {MOST_ATTEMPTS} times, and the last one ended so: Because.",
    )


@pytest.mark.parametrize("kind", [problems.LOADING, problems.OVERLOADED])
async def test_a_job_that_only_waits_for_its_turn_is_tried_until_its_deadline(
    replica: Replica, new_store: NewStore, kind: ProblemType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(worker, "MOST_RETRY_SECONDS", 0.001)
    backend = ScriptedBackend(refuse(kind))
    jobs = await replica(backend, new_store())
    waiting = await submitted(jobs, seconds=LIMIT)
    await backend.begun(MOST_ATTEMPTS + 5)
    record = await jobs.find(waiting.id)
    assert (record.state, record.attempts) == ("queued", 0)
    record = await ended(jobs, await submitted(jobs, seconds=0.05))
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "too-late")


@pytest.mark.parametrize("kind", [problems.CONTENT_FILTERED, problems.REFUSED_UPSTREAM, problems.INVALID_FIELD])
async def test_what_would_fail_again_is_tried_once(replica: Replica, kind: ProblemType) -> None:
    backend = ScriptedBackend(break_off(kind))
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (await problem_of(jobs, record))[0] == kind.slug
    assert len(backend.runs) == 1


async def test_watchers_are_told_why_a_job_waits(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.UNAVAILABLE), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    [first, *_] = [json.loads(entry.data) async for entry in jobs.watch(record.id)]
    assert first == {"state": "queued", "problem": problems.UNAVAILABLE.uri, "reason": "Because."}


async def test_jobs_that_wait_for_another_attempt_take_no_place(
    replica: Replica, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are places stopped a replica."""
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 30)
    backend = ScriptedBackend(refuse(problems.UNAVAILABLE), refuse(problems.UNAVAILABLE), complete)
    jobs = await replica(backend, new_store(), max_job_runs=2)
    waiting = [await submitted(jobs) for _ in range(2)]
    await backend.begun(2)
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert [(await jobs.find(record.id)).state for record in waiting] == ["queued", "queued"]


async def test_where_many_wait_no_more_are_claimed(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MOST_WAITING", 3)
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 30)

    async def step(record: JobRecord, journal: JobJournal) -> None:
        await (complete if record.model == "novelist" else refuse(problems.UNAVAILABLE))(record, journal)

    backend = ScriptedBackend(step)
    models = {"poet": "http://poet.test", "novelist": "http://novelist.test"}
    jobs = await replica(backend, models=models, max_job_runs=2)
    for _ in range(9):
        await submitted(jobs)
    await backend.begun(3)
    for _ in range(5):
        await ended(jobs, await submitted(jobs, model="novelist"))
    waiting = [run.id for run in backend.runs if run.model == "poet"]
    assert 3 <= len(waiting) <= 3 + 2
    for job in waiting:
        await jobs.cancel(job)
    await backend.begun(len(backend.runs) + 3)


async def test_waits_grow(replica: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", worker.log.name)
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 4)
    monkeypatch.setattr(random, "uniform", lambda _least, _most: 0.0)
    backend = ScriptedBackend(refuse(problems.UNAVAILABLE), refuse(problems.UNAVAILABLE, retry_after=20), break_off())
    jobs = await replica(backend)
    await ended(jobs, await submitted(jobs, seconds=3_600))
    waits = [line.partition(" waits ")[2].partition(" s")[0] for line in caplog.messages if " waits " in line]
    assert waits[:5] == ["4.0", "20.0", "16.0", "30.0", "30.0"]


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


async def test_a_caller_without_runs_does_not_wait_for_those_of_another(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, new_store(), max_job_runs=2)
    for _ in range(4):
        await submitted(jobs, caller="greedy")
    await backend.begun(2)
    for _ in range(2):
        await submitted(jobs, caller="small")
    await backend.begun(3)
    await jobs.cancel(backend.runs[0].id)
    await backend.begun(4)
    assert [run.caller for run in backend.runs[:3]] == ["greedy", "greedy", "small"]


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
