"""What replicas count of the jobs that they work on, with either store."""

from __future__ import annotations

from typing import Any

import pytest

from contract import ProblemError, problems
from tests.support.jobs import (
    KEEP_SECONDS,
    NewStore,
    Replica,
    ScriptedBackend,
    complete,
    deliver,
    ended,
    hang,
    new_record,
    refuse,
    result,
    submitted,
)
from tests.support.waiting import eventually
from tests.support.web.samples import Sample
from web.jobs.service import JobService
from web.jobs.stores import redis_queue
from web.jobs.stores.redis_store import RedisStore


class Counts:
    """Of the poet's jobs."""

    def __init__(self) -> None:
        self.added = Sample("jobs_added_total", model="poet")
        self.takeovers = Sample("job_takeovers_total", model="poet")
        self._attempts = {name: Sample("job_attempts_total", model="poet", outcome=name) for name in self._OUTCOMES}
        self._ends = {name: Sample("jobs_ended_total", model="poet", state=name) for name in self._STATES}

    _OUTCOMES = ("done", "failed", "retried", "left")
    _STATES = ("completed", "failed", "cancelled")

    @property
    def attempts(self) -> dict[str, float]:
        return {name: sample.grown for name, sample in self._attempts.items() if sample.grown}

    @property
    def ends(self) -> dict[str, float]:
        return {name: sample.grown for name, sample in self._ends.items() if sample.grown}


def runs() -> float:
    return Sample("job_runs", model="poet").value


async def all_runs_over(jobs: JobService) -> None:
    await eventually(lambda: not jobs._worker._runs, "no run is left")


async def test_a_job_that_is_done(replica: Replica, new_store: NewStore) -> None:
    counts, before = Counts(), runs()
    jobs = await replica(ScriptedBackend(complete), new_store())
    for _ in range(3):
        await ended(jobs, await submitted(jobs))
    await all_runs_over(jobs)
    assert (counts.added.grown, counts.attempts, counts.ends) == (3, {"done": 3}, {"completed": 3})
    assert (runs(), counts.takeovers.grown) == (before, 0)


async def test_a_key_that_is_used_again_adds_no_job(replica: Replica, new_store: NewStore) -> None:
    counts = Counts()
    jobs = await replica(ScriptedBackend(complete), new_store())
    for _ in range(2):
        await ended(jobs, await submitted(jobs, key="k"))
    assert counts.added.grown == 1


async def test_a_job_that_has_failed_and_is_made_again_is_two(replica: Replica, new_store: NewStore) -> None:
    counts = Counts()
    jobs = await replica(ScriptedBackend(refuse(problems.REFUSED_UPSTREAM), complete), new_store())
    await ended(jobs, await submitted(jobs, key="k"))
    await all_runs_over(jobs)
    assert (counts.attempts, counts.ends) == ({"failed": 1}, {"failed": 1})
    await ended(jobs, await submitted(jobs, key="k"))
    assert (counts.added.grown, counts.takeovers.grown) == (2, 0)
    assert counts.ends == {"failed": 1, "completed": 1}


async def test_attempts_that_are_made_again(replica: Replica, new_store: NewStore) -> None:
    counts = Counts()
    backend = ScriptedBackend(refuse(problems.LOADING), refuse(problems.UNAVAILABLE), refuse(problems.INVALID_FIELD))
    jobs = await replica(backend, new_store())
    await ended(jobs, await submitted(jobs))
    await all_runs_over(jobs)
    assert (counts.attempts, counts.ends) == ({"retried": 2, "failed": 1}, {"failed": 1})


async def test_a_job_that_is_cancelled_while_it_runs(replica: Replica, new_store: NewStore) -> None:
    counts, before, backend = Counts(), runs(), ScriptedBackend(hang)
    jobs = await replica(backend, new_store())
    record = await submitted(jobs)
    await backend.begun(1)
    assert runs() == before + 1
    await jobs.cancel(record.id)
    await all_runs_over(jobs)
    assert (counts.attempts, counts.ends, runs()) == ({"left": 1}, {"cancelled": 1}, before)


async def test_a_job_whose_end_comes_by_another_way(replica: Replica, new_store: NewStore) -> None:
    counts = Counts()
    jobs = await replica(ScriptedBackend(deliver), new_store())
    record = await submitted(jobs)
    await all_runs_over(jobs)
    await eventually(lambda: counts.attempts == {"done": 1}, "it was passed on")
    assert counts.ends == {}
    assert await jobs.journal.end(record.id, result(record))
    assert not await jobs.journal.end(record.id, ProblemError(problems.TOO_LATE, "Late."))
    assert counts.ends == {"completed": 1}


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)


@pytest.mark.usefixtures("short_leases")
@pytest.mark.parametrize("started", [True, False])
async def test_a_dead_replicas_job_is_taken_over(replica: Replica, redis_url: str, started: bool) -> None:
    counts = Counts()
    dead = RedisStore(redis_url, KEEP_SECONDS, 1_000, 5)
    record = await dead.add(new_record())
    await dead.claim("poet")
    if started:
        await dead.start("a", await dead.now())
    await dead.close()
    jobs = await replica(ScriptedBackend(complete), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    await ended(jobs, record)
    assert counts.takeovers.grown == 1


@pytest.mark.usefixtures("short_leases")
async def test_a_job_that_was_given_back_is_taken_over(replica: Replica, redis_url: str) -> None:
    counts, first = Counts(), ScriptedBackend(hang)
    before = await replica(first, RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    record = await submitted(before)
    await first.begun(1)
    first.runs.clear()  # it is not to be cancelled at the end
    await before.close(0)
    assert (counts.attempts, counts.takeovers.grown) == ({"left": 1}, 0)
    jobs = await replica(ScriptedBackend(complete), RedisStore(redis_url, KEEP_SECONDS, 1_000, 5))
    await ended(jobs, record)
    assert (counts.takeovers.grown, counts.ends) == (1, {"completed": 1})


async def test_a_replica_that_claims_what_it_holds_takes_nothing_over(redis_url: str) -> None:
    store = RedisStore(redis_url, KEEP_SECONDS, 1_000, 5)
    await store.add(new_record())
    claim: Any = await store.claim("poet")
    assert not claim.taken_over
    assert [*await store._scripts.claim([store._keys.job("a")], [store._replica, claim.entry])] == [1, 0]
    assert [*await store._scripts.claim([store._keys.job("a")], ["another", claim.entry])] == [2, 1]
    await store.close()
