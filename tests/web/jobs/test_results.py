"""Results that could not be stored at once are stored later, and nothing is generated a second time for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from contract import ProblemError, ProblemType, problems
from tests.support.jobs import (
    KEEP_SECONDS,
    NewStore,
    Replica,
    ScriptedBackend,
    SharedStore,
    added,
    begin,
    claimed,
    ended,
    entries_of,
    pairs,
    result,
    submitted,
)
from web.jobs import journal, results
from web.jobs.journal import JobJournal
from web.jobs.record import JobRecord
from web.jobs.results import Results
from web.jobs.store import JobStore
from web.jobs.stores.memory_store import MemoryStore
from wire.artifacts import Artifacts


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.01)


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """Takes every result, however small."""
    monkeypatch.setattr(results, "EVENT_BYTES", 0)
    return Artifacts((tmp_path / "artifacts").as_uri())


def files(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "artifacts").glob("*")]


async def generate(record: JobRecord, journal: JobJournal) -> None:
    await begin(record, journal)
    await journal.complete(record, result(record))


def failing(store: JobStore, times: int, kind: ProblemType = problems.UNAVAILABLE, *, written: bool = False) -> None:
    """Its next ends as completed fail, after having been `written` or not."""
    finish: Callable[..., Any] = store.finish
    left = times

    async def fail(job: str, end: str, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        if end != "completed" or left == 0:
            return await finish(job, end, *arguments, **named)
        left -= 1
        if written:
            await finish(job, end, *arguments, **named)
        raise ProblemError(kind, "It is full.")

    store.finish = fail  # type: ignore[method-assign]


async def test_a_result_that_is_stored_late_is_not_generated_again(replica: Replica, new_store: NewStore) -> None:
    store, backend = new_store(), ScriptedBackend(generate)
    failing(store, 3)
    jobs = await replica(backend, store)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, record.attempts, len(backend.runs)) == ("completed", 1, 1)


async def test_a_result_that_cannot_be_stored_is_a_problem_of_its_own(
    replica: Replica, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEEP_TRYING_SECONDS", 0)
    store, backend = new_store(), ScriptedBackend(generate)
    failing(store, -1)
    jobs = await replica(backend, store)
    record = await ended(jobs, await submitted(jobs))
    assert (record.state, len(backend.runs)) == ("failed", 1)
    assert record.problem is not None
    assert (record.problem.type, record.problem.status) == (problems.UNAVAILABLE.uri, 503)
    assert record.problem.detail == "What was generated could not be stored: It is full."
    assert record.problem.retry_after


async def test_a_large_result_is_kept_as_an_artifact(artifacts: Artifacts, tmp_path: Path, new_store: NewStore) -> None:
    store, kept = new_store(), Results(artifacts)
    await store.open()
    await added(store, "a")
    record = await claimed_record(store)
    await JobJournal(store, kept).complete(record, result(record))
    found = await store.get("a")
    assert found is not None
    assert (found.state, found.outcome, found.problem) == ("completed", None, None)
    assert (await kept.result(found), await kept.document(found)) == (result(found), result(found).model_dump_json())
    assert pairs(await entries_of(store, "a")) == [("result", "")]
    [name] = files(tmp_path)
    assert name.startswith("a-")
    await kept.delete(found.artifact)
    assert files(tmp_path) == []
    with pytest.raises(ProblemError) as gone:
        await kept.result(found)
    assert gone.value.kind is problems.NOT_FOUND
    await kept.delete(found.artifact)
    with pytest.raises(ProblemError) as unknown:
        await Results(None).result(found)
    assert unknown.value.kind is problems.UNAVAILABLE
    await store.close()


async def claimed_record(store: JobStore) -> JobRecord:
    record = await store.get((await claimed(store)).job)
    assert record is not None
    return record


async def test_an_artifact_is_written_once_however_often_the_store_fails(artifacts: Artifacts, tmp_path: Path) -> None:
    store = MemoryStore(KEEP_SECONDS, 1_000_000, 1_000)
    await added(store, "a")
    record = await claimed_record(store)
    failing(store, 3)
    await JobJournal(store, Results(artifacts)).complete(record, result(record))
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("written", [False, True], ids=["ended elsewhere", "ended by the write whose answer was lost"])
async def test_an_artifact_stays_only_where_its_job_ended_with_it(
    artifacts: Artifacts, tmp_path: Path, written: bool
) -> None:
    store = MemoryStore(KEEP_SECONDS, 1_000_000, 1_000)
    await added(store, "a")
    record = await claimed_record(store)
    if written:
        failing(store, 1, written=True)
    else:
        await store.finish("a", "cancelled", "{}", 7)
    await JobJournal(store, Results(artifacts)).complete(record, result(record))
    assert len(files(tmp_path)) == written


async def test_artifacts_that_cannot_be_written_are_tried_again(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEEP_TRYING_SECONDS", 0)
    blocked = tmp_path / "artifacts"
    blocked.write_text("no folder")
    store = MemoryStore(KEEP_SECONDS, 1_000_000, 1_000)
    await added(store, "a")
    record = await claimed_record(store)
    await JobJournal(store, Results(artifacts)).complete(record, result(record))
    found = await store.get("a")
    assert found is not None
    assert found.state == "failed"
    assert found.problem is not None
    assert found.problem.detail.startswith("What was generated could not be stored: The artifact could not be written")


async def test_older_replicas_see_a_problem_in_the_place_of_an_artifact(
    artifacts: Artifacts, shared: SharedStore, redis_client: redis.Redis
) -> None:
    """Up to commit 31fe71b they read `end`, `outcome` and the name of the log's last event."""
    raw: Any = redis_client
    store = await shared()
    await added(store, "a")
    record = await claimed_record(store)
    await JobJournal(store, Results(artifacts)).complete(record, result(record))
    stored = raw.hgetall("shangcai:job:a")
    assert stored["end"] == "failed"
    assert '"type":"urn:shangcai:problem:unavailable"' in stored["outcome"]
    assert "artifacts" not in stored["outcome"]
    assert [entry for _, entry in raw.xrange("shangcai:log:a")][-1] == {"event": "error", "data": ""}
    found = await store.get("a")
    assert found is not None
    assert found.state == "completed"
