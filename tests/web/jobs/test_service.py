"""From a request to exactly one end; positions, idempotency keys and limits."""

from __future__ import annotations

import asyncio
import time

import pytest

from contract import GenerationRequest, ProblemError, StatusEvent, problems
from tests.support.jobs import (
    LIMIT,
    REQUEST,
    NewStore,
    Replica,
    ScriptedBackend,
    begin,
    complete,
    deliver,
    ended,
    hang,
    log_of,
    problem_of,
    refuse,
    result,
    submitted,
)
from tests.support.waiting import eventually
from web.jobs.journal import JobJournal
from web.jobs.record import JobRecord
from web.jobs.stores.redis_store import RedisStore


async def test_a_job_is_queued_then_running_then_completed(replica: Replica) -> None:
    gate = asyncio.Event()

    async def wait_then_complete(record: JobRecord, journal: JobJournal) -> None:
        await begin(record, journal)
        await gate.wait()
        await journal.end(record.id, result(record))

    backend = ScriptedBackend(wait_then_complete)
    jobs = await replica(backend)
    before = time.time()
    record = await submitted(jobs, seconds=60)
    assert record.state == "queued"
    await backend.begun(1)
    running = await jobs.document(await jobs.find(record.id))
    assert (running.state, running.position, running.ended_at, running.result) == ("running", None, None, None)
    gate.set()
    stored = await ended(jobs, record)
    document = await jobs.document(stored)
    assert (document.state, document.error, document.result) == ("completed", None, result(record))
    assert document.started_at is not None
    assert document.ended_at is not None
    assert document.created_at <= document.started_at <= document.ended_at < document.deadline_at
    assert document.created_at.endswith("Z")
    assert before + 60 - 0.001 <= stored.deadline <= time.time() + 60
    assert await log_of(jobs, record) == ["running", "春", "result"]
    assert stored.attempts == len(backend.runs) == 1


async def test_request_headers_and_model_are_stored(replica: Replica) -> None:
    backend = ScriptedBackend(complete)
    jobs = await replica(backend)
    request = GenerationRequest(prompt="春", temperature=0.5, stop=["。"], stream=True)
    await ended(jobs, await submitted(jobs, request))
    [run] = backend.runs
    assert run.headers == {"X-Request-Id": "r"}
    stored = GenerationRequest.model_validate_json(run.request)
    assert stored.seed is not None
    assert stored == request.model_copy(update={"seed": stored.seed, "stream": False, "model": "poet"})


async def test_a_problem_that_is_not_transient_ends_a_job(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.INVALID_FIELD), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, await problem_of(jobs, record)) == ("failed", ("invalid-field", "Because."))
    assert await log_of(jobs, record) == ["error"]
    assert len(backend.runs) == 1


async def test_an_error_of_the_server_ends_a_job(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    async def stumble(_record: JobRecord, _journal: JobJournal) -> None:
        raise ZeroDivisionError

    backend = ScriptedBackend(stumble, complete)
    jobs = await replica(backend, max_job_runs=1)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "internal")
    assert "ZeroDivisionError" in caplog.text
    assert (await ended(jobs, await submitted(jobs))).state == "completed"


async def test_a_delivered_job_ends_by_a_later_reply(replica: Replica) -> None:
    backend = ScriptedBackend(deliver)
    jobs = await replica(backend, max_job_runs=1)
    records = [await submitted(jobs) for _ in range(2)]
    await backend.begun(2)  # it holds no place
    assert [(await jobs.find(record.id)).state for record in records] == ["queued"] * 2
    assert await jobs.journal.end(records[0].id, result(records[0]))
    assert (await ended(jobs, records[0])).state == "completed"
    assert len(backend.runs) == 2


async def test_of_many_ends_the_first_counts(replica: Replica) -> None:
    backend = ScriptedBackend(deliver)
    jobs = await replica(backend)
    record = await submitted(jobs)
    ends = await asyncio.gather(*(jobs.journal.end(record.id, result(record)) for _ in range(20)))
    assert ends.count(True) == 1
    assert await jobs.journal.end(record.id, ProblemError(problems.TOO_LATE, "late")) is False
    assert await log_of(jobs, record) == ["result"]


async def test_only_max_job_runs_run_at_once(replica: Replica, new_store: NewStore) -> None:
    running = most = 0
    released = asyncio.Event()

    async def count(record: JobRecord, journal: JobJournal) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await released.wait()
        running -= 1
        await complete(record, journal)

    jobs = await replica(ScriptedBackend(count), new_store(), max_job_runs=3)
    records = await asyncio.gather(*(submitted(jobs) for _ in range(20)))
    await eventually(lambda: running == 3)
    released.set()
    assert [(await ended(jobs, record)).state for record in records] == ["completed"] * 20
    assert most == 3


async def test_models_do_not_wait_for_each_other(replica: Replica) -> None:
    backend = ScriptedBackend(hang, complete)
    jobs = await replica(backend, max_job_runs=1, models={"poet": "http://p.test", "novelist": "http://n.test"})
    await submitted(jobs)
    await backend.begun(1)
    assert (await ended(jobs, await submitted(jobs, model="novelist"))).state == "completed"


async def test_waiting_for_an_end_takes_no_longer_than_asked(replica: Replica) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend)
    record = await submitted(jobs)
    await backend.begun(1)
    for seconds in (0.0, 0.05):
        begun = time.monotonic()
        assert (await asyncio.wait_for(jobs.wait(record.id, seconds), LIMIT)).state == "running"
        assert time.monotonic() - begun + 0.005 >= seconds


async def test_an_unknown_job_is_not_found(replica: Replica) -> None:
    jobs = await replica(ScriptedBackend(hang))
    for asking in (jobs.find("x"), jobs.cancel("x"), jobs.wait("x", None)):
        with pytest.raises(ProblemError) as problem:
            await asking
        assert problem.value.kind is problems.NOT_FOUND


async def test_more_than_max_jobs_are_refused(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, new_store(), max_jobs=2, max_job_runs=1)
    first = await submitted(jobs, key="k")
    await backend.begun(1)
    await submitted(jobs)
    with pytest.raises(ProblemError) as refused:
        await submitted(jobs)
    assert refused.value.kind is problems.OVERLOADED
    assert refused.value.headers == {"Retry-After": "1"}
    assert (await submitted(jobs, key="k")).id == first.id  # which is no other job
    await jobs.cancel(first.id)
    await submitted(jobs)
    await backend.begun(2)  # no run begins while the replica is closed, which would wait for it


async def test_a_retry_after_grows_with_the_queue_and_with_the_time_that_jobs_take(replica: Replica) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, max_job_runs=2)
    records = [await submitted(jobs) for _ in range(7)]
    await backend.begun(2)
    assert [await jobs.retry_after(await jobs.find(record.id)) for record in records] == [1, 1, 2, 2, 3, 3, 4]


async def test_a_model_that_is_not_served_here_is_no_obstacle(replica: Replica, new_store: NewStore) -> None:
    """Another replica, of an earlier deployment, has made the job."""
    store = new_store()
    jobs = await replica(ScriptedBackend(hang), store)
    now = time.time()
    record = JobRecord("a", "retired", "text", "{}", "d", now, now + 60, started=None)
    await store.add(record)
    assert await jobs.retry_after(record) == 1
    await jobs.journal.start("a")
    assert await jobs.journal.end("a", result(record))
    assert (await jobs.document(await jobs.find("a"))).state == "completed"


async def test_the_same_key_and_request_are_the_same_job(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(complete)
    jobs = await replica(backend, new_store())
    first = await submitted(jobs, key="k")
    streamed = GenerationRequest(prompt="春", stream=True)  # which is another answer, and no other request
    assert (await submitted(jobs, streamed, key="k")).id == first.id
    record = await ended(jobs, first)
    again = await submitted(jobs, key="k")
    assert (again.id, again.outcome) == (first.id, record.outcome)
    assert len(backend.runs) == 1
    assert (await submitted(jobs, key="another")).id != first.id


@pytest.mark.parametrize(
    ("other", "model"),
    [(GenerationRequest(prompt="秋"), "poet"), (GenerationRequest(prompt="春", seed=1), "poet"), (REQUEST, "novelist")],
)
async def test_the_same_key_with_another_request_is_refused(
    replica: Replica, other: GenerationRequest, model: str
) -> None:
    jobs = await replica(ScriptedBackend(hang), models={"poet": "http://p.test", "novelist": "http://n.test"})
    first = await submitted(jobs, key="k")
    with pytest.raises(ProblemError) as refused:
        await submitted(jobs, other, model=model, key="k")
    assert (refused.value.kind.slug, refused.value.kind.status) == ("key-reused", 422)
    assert await jobs.find(first.id)


async def test_the_same_key_at_once_is_one_job(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(complete)
    replicas = [await replica(backend, new_store())]
    if isinstance(store := new_store(), RedisStore):
        replicas.append(await replica(backend, store))
    records = await asyncio.gather(*(submitted(jobs, key="k") for jobs in replicas * 20))
    assert len({record.id for record in records}) == 1
    for jobs in replicas:
        assert (await ended(jobs, records[0])).state == "completed"
    assert len(backend.runs) == 1


async def test_how_long_a_job_waits_is_told_once_it_is_known(replica: Replica, new_store: NewStore) -> None:
    """One runs at a time, for two seconds."""
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, new_store(), max_job_runs=1)
    running = await submitted(jobs, caller="a")
    await backend.begun(1)
    waiting = [await submitted(jobs, caller=caller) for caller in "aaa"]
    assert [(await jobs.document(record)).expected_seconds for record in waiting] == [None] * 3
    assert [(await jobs.waiting(record, 1)).position for record in waiting] == [1, 2, 3]

    jobs.journal.service_time("poet").seconds = 2.0
    jobs.journal.service_time("poet").known = True
    documents = [await jobs.document(record) for record in waiting]
    assert [document.expected_seconds for document in documents] == [4, 6, 8]
    assert [await jobs.retry_after(record) for record in waiting] == [4, 6, 8]
    assert (await jobs.document(await jobs.find(running.id))).expected_seconds is None


async def test_a_job_is_pending_once_it_was_passed_on(replica: Replica, new_store: NewStore) -> None:
    passed_on = asyncio.Event()

    async def silent(record: JobRecord, journal: JobJournal) -> None:
        await passed_on.wait()
        journal.passed_on(record.id)
        await asyncio.Event().wait()

    backend = ScriptedBackend(silent)
    jobs = await replica(backend, new_store(), max_job_runs=1)
    first, second = [await submitted(jobs) for _ in range(2)]
    await eventually(lambda: jobs.journal.silent_seconds(first.id) is not None)
    assert (await jobs.waiting(first, 0.01)).state == "queued"  # it is held here still
    passed_on.set()
    await eventually(lambda: jobs.journal.silent_seconds(first.id))
    assert (await jobs.waiting(first, 60)).state == "queued"  # a server that is awake answers by then
    assert await jobs.waiting(first, 0) == StatusEvent(state="pending")
    assert (await jobs.waiting(second, 0)).state == "queued"
    jobs.journal.heard_of(first.id)
    assert (await jobs.waiting(first, 0.01)).state == "queued"  # in its model server, by its own word
    if isinstance(store := new_store(), RedisStore):
        other = await replica(ScriptedBackend(silent), store, max_job_runs=1)
        found = await other.find(first.id)
        assert await other.waiting(found, 60) == StatusEvent(state="pending")
        assert (await other.waiting(found, 0, requeued=True)).state == "queued"


async def test_how_many_run_at_a_time_is_learned(replica: Replica) -> None:
    gate = asyncio.Event()

    async def wait_then_complete(record: JobRecord, journal: JobJournal) -> None:
        await begin(record, journal)
        await gate.wait()
        await journal.end(record.id, result(record))

    backend = ScriptedBackend(wait_then_complete)
    jobs = await replica(backend, max_job_runs=3)
    records = [await submitted(jobs) for _ in range(3)]
    await backend.begun(3)
    gate.set()
    for record in records:
        assert (await ended(jobs, record)).state == "completed"
    assert jobs.journal.service_time("poet").known
    assert jobs.journal.service_time("poet").parallel > 1
    before = jobs.journal.service_time("poet").parallel
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert jobs.journal.service_time("poet").parallel < before  # nothing is left of those that have ended
