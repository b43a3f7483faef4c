"""Jobs: from a request to exactly one end, whatever the backend to the predictor does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from contract import (
    GenerationRequest,
    ProblemError,
    ProblemType,
    StatusEvent,
    TextResult,
    Timing,
    TokenEvent,
    Usage,
    problems,
)
from web.jobs import redis_queue, worker
from web.jobs.journal import JobJournal
from web.jobs.memory_store import MemoryStore
from web.jobs.record import Claim, JobRecord
from web.jobs.redis_store import RedisStore
from web.jobs.service import JobService
from web.jobs.store import JobStore
from web.jobs.worker import MOST_ATTEMPTS
from web.settings import Settings

LIMIT = 10.0
REQUEST = GenerationRequest(prompt="春")

Step = Callable[[JobRecord, JobJournal], Awaitable[None]]
NewStore = Callable[[], JobStore]


class ScriptedBackend:
    """Goes one step for each attempt, whichever job it is for, and the last step for all that come later."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.runs: list[JobRecord] = []
        self.given_up: list[str] = []
        self.cancelled: list[str] = []

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        self.runs.append(record)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        try:
            await step(record, journal)
        except asyncio.CancelledError:
            self.given_up.append(record.id)
            raise

    async def cancel(self, record: JobRecord) -> None:
        self.cancelled.append(record.id)

    async def begun(self, runs: int) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self.runs) < runs:
                await asyncio.sleep(0.005)


def result(record: JobRecord) -> TextResult:
    return TextResult(
        id=record.id,
        model=record.model,
        text="春天",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=2),
        timing=Timing(queue_s=None, first_token_s=0.1, total_s=0.2),
    )


async def begin(record: JobRecord, journal: JobJournal) -> None:
    assert await journal.start(record.id)
    await journal.append(record.id, [StatusEvent(state="running"), TokenEvent(text="春")])


async def complete(record: JobRecord, journal: JobJournal) -> None:
    await begin(record, journal)
    await journal.end(record.id, result(record))


async def hang(record: JobRecord, journal: JobJournal) -> None:
    await begin(record, journal)
    await asyncio.Event().wait()


async def deliver(_record: JobRecord, _journal: JobJournal) -> None:
    """Its end is going to come by another backend."""


def refuse(kind: ProblemType, retry_after: int | None = None) -> Step:
    async def step(_record: JobRecord, _journal: JobJournal) -> None:
        raise ProblemError(kind, "Because.", retry_after=retry_after)

    return step


def break_off(kind: ProblemType = problems.BAD_UPSTREAM) -> Step:
    async def step(record: JobRecord, journal: JobJournal) -> None:
        await begin(record, journal)
        raise ProblemError(kind, "It broke.")

    return step


Replica = Callable[..., Awaitable[JobService]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(worker, "REAP_SECONDS", 0.05)


@pytest.fixture(params=["memory", "redis"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    if request.param == "memory":
        return lambda: MemoryStore(60, 1_000_000, 1_000)
    url = request.getfixturevalue("redis_url")
    return lambda: RedisStore(url, 60, 1_000, 5)


@pytest.fixture
async def replica() -> AsyncGenerator[Replica]:
    """Jobs on a store, in memory where none is given, and on a backend."""
    made: list[tuple[JobService, ScriptedBackend]] = []

    async def make(backend: ScriptedBackend, store: JobStore | None = None, **settings: Any) -> JobService:
        settings = {"models": {"poet": "http://poet.test"}, "grace_seconds": 1, **settings}
        jobs = JobService(Settings(**settings), store or MemoryStore(60, 1_000_000, 1_000), backend)
        made.append((jobs, backend))
        await jobs.open()
        return jobs

    yield make
    await asyncio.sleep(0.01)  # for what is just being begun
    for jobs, backend in made:
        for record in backend.runs:  # or the end of what hangs is waited for
            await jobs.cancel(record.id)
        await jobs.close(LIMIT)


async def submitted(
    jobs: JobService, request: GenerationRequest = REQUEST, *, seconds: float = 60, **options: Any
) -> JobRecord:
    options = {"model": "poet", "key": None, **options}
    return await jobs.submit(request, request, seconds=seconds, headers={"X-Request-Id": "r"}, **options)


async def ended(jobs: JobService, record: JobRecord) -> JobRecord:
    async with asyncio.timeout(LIMIT):
        return await jobs.wait(record.id, None)


async def told(jobs: JobService, record: JobRecord) -> list[str]:
    """Its events, as states and texts and the names of the last ones."""
    async with asyncio.timeout(LIMIT):
        entries = [entry async for entry in jobs.watch(record.id)]
    documents = [(entry.event, json.loads(entry.data)) for entry in entries]
    return [
        document.get("state") or (event if event in ("result", "error") else document["text"])
        for event, document in documents
    ]


async def problem_of(jobs: JobService, record: JobRecord) -> tuple[str, str]:
    error = (await jobs.document(record)).error
    assert error is not None
    return error.type.removeprefix("urn:shangcai:problem:"), error.detail


# To an end


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
    kept = await ended(jobs, record)
    document = await jobs.document(kept)
    assert (document.state, document.error, document.result) == ("completed", None, result(record))
    assert document.started_at is not None
    assert document.ended_at is not None
    assert document.created_at <= document.started_at <= document.ended_at < document.deadline_at
    assert document.created_at.endswith("Z")
    assert before + 60 - 0.001 <= kept.deadline <= time.time() + 60
    assert await told(jobs, record) == ["running", "春", "result"]
    assert kept.attempts == len(backend.runs) == 1


async def test_what_follows_the_request_is_kept(replica: Replica) -> None:
    backend = ScriptedBackend(complete)
    jobs = await replica(backend)
    request = GenerationRequest(prompt="春", temperature=0.5, stop=["。"], stream=True)
    await ended(jobs, await submitted(jobs, request))
    [run] = backend.runs
    assert run.headers == {"X-Request-Id": "r"}
    kept = GenerationRequest.model_validate_json(run.request)
    assert kept.seed is not None
    assert kept == request.model_copy(update={"seed": kept.seed, "stream": False, "model": "poet"})


async def test_a_problem_that_repetition_cannot_mend_is_the_end(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.INVALID_FIELD), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, await problem_of(jobs, record)) == ("failed", ("invalid-field", "Because."))
    assert await told(jobs, record) == ["error"]
    assert len(backend.runs) == 1


async def test_a_mistake_of_the_server_is_the_end(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    async def stumble(_record: JobRecord, _journal: JobJournal) -> None:
        raise ZeroDivisionError

    backend = ScriptedBackend(stumble, complete)
    jobs = await replica(backend, max_job_runs=1)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, (await problem_of(jobs, record))[0]) == ("failed", "internal")
    assert "ZeroDivisionError" in caplog.text
    assert (await ended(jobs, await submitted(jobs))).state == "completed"


async def test_what_is_delivered_ends_by_another_way(replica: Replica) -> None:
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
    assert await told(jobs, record) == ["result"]


async def test_only_so_many_run_at_once(replica: Replica, new_store: NewStore) -> None:
    running = most = 0

    async def count(record: JobRecord, journal: JobJournal) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        await complete(record, journal)

    jobs = await replica(ScriptedBackend(count), new_store(), max_job_runs=3)
    records = await asyncio.gather(*(submitted(jobs) for _ in range(20)))
    async with asyncio.timeout(LIMIT):
        states = [(await jobs.wait(record.id, None)).state for record in records]
    assert (states, most) == (["completed"] * 20, 3)


async def test_models_do_not_wait_for_each_other(replica: Replica) -> None:
    backend = ScriptedBackend(hang, complete)
    jobs = await replica(backend, max_job_runs=1, models={"poet": "http://p.test", "novelist": "http://n.test"})
    await submitted(jobs)
    await backend.begun(1)
    assert (await ended(jobs, await submitted(jobs, model="novelist"))).state == "completed"


# Once more


async def test_what_may_pass_is_tried_again_with_the_same_seed(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING), refuse(problems.UNAVAILABLE), break_off(), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, record.attempts) == ("completed", 2)
    assert len(backend.runs) == 4
    assert len({run.request for run in backend.runs}) == 1
    assert "seed" in json.loads(record.request)
    assert await told(jobs, record) == ["running", "春", "queued", "running", "春", "result"]


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


async def test_what_breaks_off_again_and_again_is_given_up(replica: Replica) -> None:
    backend = ScriptedBackend(break_off())
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, len(backend.runs)) == ("failed", MOST_ATTEMPTS)
    slug, detail = await problem_of(jobs, record)
    assert slug == "undelivered"
    assert f"begun {MOST_ATTEMPTS} times" in detail


async def test_what_is_never_begun_is_tried_until_its_deadline(replica: Replica) -> None:
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
    await given_up(backend, record)


async def given_up(backend: ScriptedBackend, record: JobRecord) -> None:
    async with asyncio.timeout(1):
        while record.id not in backend.given_up:
            await asyncio.sleep(0.005)


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


async def test_nobody_waits_for_an_attempt_that_would_come_after_the_deadline(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING, retry_after=20), complete)
    jobs = await replica(backend)
    record = await ended(jobs, await submitted(jobs, seconds=15))
    slug, detail = await problem_of(jobs, record)
    assert (slug, len(backend.runs)) == ("too-late", 1)
    assert "Because." in detail
    assert time.time() < record.deadline


async def test_what_is_late_is_not_begun_although_nobody_has_ended_it_yet(
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


async def test_what_is_late_is_found_ended(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REAP_SECONDS", 60)
    jobs = await replica(ScriptedBackend(deliver))
    await asyncio.sleep(0)  # the first look of the reaper
    record = await submitted(jobs, seconds=0.01)
    await asyncio.sleep(0.02)
    assert (await jobs.find(record.id)).state == "failed"


# Cancelling


async def test_what_is_cancelled_while_it_is_queued_is_never_begun(replica: Replica, new_store: NewStore) -> None:
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


async def test_what_is_cancelled_while_it_is_running_is_given_up_at_once(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang, complete)
    jobs = await replica(backend, new_store(), max_job_runs=1)
    record = await submitted(jobs)
    await backend.begun(1)
    assert (await jobs.cancel(record.id)).state == "cancelled"
    await given_up(backend, record)
    assert (await told(jobs, record))[-1] == "error"
    assert (await ended(jobs, await submitted(jobs))).state == "completed"  # its place is free


async def test_what_is_cancelled_while_it_waits_for_another_attempt_gets_none(replica: Replica) -> None:
    backend = ScriptedBackend(refuse(problems.LOADING, retry_after=20), complete)
    jobs = await replica(backend, max_job_runs=1)
    record = await submitted(jobs)
    await backend.begun(1)
    await jobs.cancel(record.id)
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert [run.id for run in backend.runs].count(record.id) == 1


async def test_what_has_ended_cannot_be_cancelled(replica: Replica) -> None:
    backend = ScriptedBackend(complete, hang)
    jobs = await replica(backend)
    record = await submitted(jobs)
    await ended(jobs, record)
    assert (await jobs.cancel(record.id)).state == "completed"
    other = await submitted(jobs)
    assert [(await jobs.cancel(other.id)).state for _ in range(3)] == ["cancelled"] * 3
    assert backend.cancelled == [other.id]


async def test_an_unknown_job_is_not_found(replica: Replica) -> None:
    jobs = await replica(ScriptedBackend(hang))
    for asking in (jobs.find("x"), jobs.cancel("x"), jobs.wait("x", None)):
        with pytest.raises(ProblemError) as problem:
            await asking
        assert problem.value.kind is problems.NOT_FOUND


# Asking


async def test_an_outcome_is_waited_for_no_longer_than_asked(replica: Replica) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend)
    record = await submitted(jobs)
    await backend.begun(1)
    for seconds in (0.0, 0.05):
        begun = time.monotonic()
        assert (await jobs.wait(record.id, seconds)).state == "running"
        assert seconds <= time.monotonic() - begun + 0.005 < seconds + 1


async def test_more_jobs_than_are_allowed_are_refused(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, new_store(), max_jobs=2, max_job_runs=1)
    first = await submitted(jobs, key="k")
    await submitted(jobs)
    with pytest.raises(ProblemError) as refused:
        await submitted(jobs)
    assert refused.value.kind is problems.OVERLOADED
    assert refused.value.headers == {"Retry-After": "1"}
    assert (await submitted(jobs, key="k")).id == first.id  # which is no other job
    await jobs.cancel(first.id)
    await submitted(jobs)


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


# Keys


async def test_the_same_key_and_order_are_the_same_job(replica: Replica, new_store: NewStore) -> None:
    backend = ScriptedBackend(complete)
    jobs = await replica(backend, new_store())
    first = await submitted(jobs, key="k")
    streamed = GenerationRequest(prompt="春", stream=True)  # which is another answer, and no other request
    assert (await submitted(jobs, streamed, key="k")).id == first.id
    record = await ended(jobs, first)
    again = await submitted(jobs, key="k")
    assert (again.id, again.outcome, again.request) == (first.id, record.outcome, first.request)
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


# Leaving and coming back


async def test_without_others_what_runs_is_finished_before_leaving(replica: Replica) -> None:
    gate = asyncio.Event()

    async def wait_then_complete(record: JobRecord, journal: JobJournal) -> None:
        await gate.wait()
        await complete(record, journal)

    store = MemoryStore(60, 1_000_000, 1_000)
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


async def test_what_hangs_does_not_hold_up_the_end(replica: Replica) -> None:
    backend = ScriptedBackend(hang)
    jobs = await replica(backend)
    record = await submitted(jobs)
    await backend.begun(1)
    begun = time.monotonic()
    await jobs.close(1)
    assert 0.9 <= time.monotonic() - begun < 3
    assert backend.given_up == [record.id]


async def test_what_a_replica_leaves_another_takes_up_at_once(replica: Replica, redis_url: str) -> None:
    backend = ScriptedBackend(hang, hang, complete)
    first = await replica(backend, RedisStore(redis_url, 60, 1_000, 5), max_job_runs=2)
    records = [await submitted(first) for _ in range(3)]
    await backend.begun(2)
    begun = time.monotonic()
    await first.close(LIMIT)
    assert time.monotonic() - begun < 1  # nothing is waited for
    assert sorted(backend.given_up) == sorted(record.id for record in records[:2])
    second = await replica(backend, RedisStore(redis_url, 60, 1_000, 5))
    found = [await ended(second, record) for record in records]
    assert [(record.state, record.attempts) for record in found] == [
        ("completed", 2),
        ("completed", 2),
        ("completed", 1),
    ]
    assert time.monotonic() - begun < 5
    assert await told(second, records[0]) == ["running", "春", "queued", "running", "春", "result"]


async def test_what_a_replica_was_killed_over_is_taken_up_by_another(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    dead = RedisStore(redis_url, 60, 1_000, 5)
    now = time.time()
    record = await dead.add(JobRecord("a", "poet", "text", REQUEST.model_dump_json(), "d", now, now + 60))
    await dead.claim("poet")
    await dead.start("a", now)
    await dead.append("a", [("token", '{"text": "half"}')])
    await dead.close()
    jobs = await replica(ScriptedBackend(complete), RedisStore(redis_url, 60, 1_000, 5))
    assert (await ended(jobs, record)).state == "completed"
    assert await told(jobs, record) == ["half", "queued", "running", "春", "result"]


async def test_what_kills_every_replica_is_given_up(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.1)
    store = RedisStore(redis_url, 60, 1_000, 5)
    now = time.time()
    record = await store.add(JobRecord("a", "poet", "text", REQUEST.model_dump_json(), "d", now, now + 60))
    for _ in range(MOST_ATTEMPTS):
        await store.reset("a")
        await store.start("a", now)
    backend = ScriptedBackend(complete)
    jobs = await replica(backend, store)
    assert (await problem_of(jobs, await ended(jobs, record)))[0] == "undelivered"
    assert backend.runs == []


async def test_a_replica_does_not_take_over_what_it_is_still_at(
    replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease has run out while the store could not be reached."""
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)

    async def take_long(record: JobRecord, journal: JobJournal) -> None:
        await asyncio.sleep(0.5)
        await complete(record, journal)

    backend = ScriptedBackend(take_long)
    jobs = await replica(backend, RedisStore(redis_url, 60, 1_000, 5))
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert len(backend.runs) == 1


async def test_claims_are_kept_up(replica: Replica, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.05)
    backend = ScriptedBackend(hang)
    jobs = await replica(backend, RedisStore(redis_url, 60, 1_000, 5))
    other = await replica(backend, RedisStore(redis_url, 60, 1_000, 5))
    record = await submitted(jobs)
    await backend.begun(1)
    await asyncio.sleep(0.8)
    assert len(backend.runs) == 1
    await other.cancel(record.id)  # on another replica than the one that runs it
    await given_up(backend, record)


class Outages(MemoryStore):
    """Cannot be reached for as many calls as `left` says."""

    def __init__(self) -> None:
        super().__init__(60, 1_000_000, 1_000)
        self.left: dict[str, int] = {}

    def _call(self, name: str) -> None:
        if self.left.get(name, 0) > 0:
            self.left[name] -= 1
            raise ProblemError(problems.UNAVAILABLE, "The store cannot be reached.", retry_after=1)

    async def wait_for_end(self, job: str) -> None:
        self._call("wait_for_end")
        await super().wait_for_end(job)

    async def claim(self, model: str) -> Claim:
        self._call("claim")
        return await super().claim(model)

    async def overdue(self, now: float) -> list[str]:
        self._call("overdue")
        return await super().overdue(now)

    async def renew(self, claims: Sequence[Claim]) -> None:
        self._call("renew")
        await super().renew(claims)


async def test_an_outage_of_the_store_is_outlived(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.02)
    store = Outages()
    store.left = {"claim": 2, "overdue": 2, "renew": 2}
    backend = ScriptedBackend(complete, hang)
    jobs = await replica(backend, store)
    assert (await ended(jobs, await submitted(jobs))).state == "completed"
    assert (await ended(jobs, await submitted(jobs, seconds=0.2))).state == "failed"
    assert set(store.left.values()) == {0}


async def test_an_outage_while_a_job_is_running_does_not_lose_it(replica: Replica) -> None:
    store = Outages()
    store.left = {"wait_for_end": 1}
    backend = ScriptedBackend(hang, complete)
    jobs = await replica(backend, store)
    record = await submitted(jobs)
    await backend.begun(2)
    assert (await ended(jobs, record)).state == "completed"
