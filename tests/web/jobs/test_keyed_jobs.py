"""Jobs with an idempotency key: whose they are, and what becomes of them when they have failed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time

import pytest
import redis

from contract import GenerationRequest, ProblemError, ProblemType, problems
from tests.support.jobs import (
    MakeStore,
    NewStore,
    Replica,
    ScriptedBackend,
    SharedStore,
    added,
    claimed,
    complete,
    ended,
    entries_of,
    hang,
    log_of,
    new_record,
    pairs,
    refuse,
    submitted,
)
from web.jobs.store import ClaimLost
from web.jobs.stores.redis_store import RedisStore

SECRET = "a secret of the tests"
TRANSIENT = [problems.REFUSED_UPSTREAM, problems.INTERNAL]
LASTING = [problems.INVALID_FIELD, problems.CONTENT_FILTERED, problems.OUT_OF_MEMORY, problems.NOT_IMPLEMENTED]

CALLERS = {"callers": "header", "trusted_hops": ["127.0.0.1/32"]}


def keyed_id(secret: str) -> str:
    """Of the job of ann's key order-1."""
    return hmac.new(secret.encode(), b"ann\norder-1", hashlib.sha256).hexdigest()[:32]


async def test_ids_are_made_of_the_key_its_caller_and_the_secret(replica: Replica) -> None:
    jobs = await replica(ScriptedBackend(hang), callers_secret=SECRET)
    other = await replica(ScriptedBackend(hang), callers_secret=SECRET[::-1])
    ann, bob = [await submitted(jobs, key="order-1", caller=caller) for caller in ("ann", "bob")]
    assert ann.id == keyed_id(SECRET)
    assert len({ann.id, bob.id, (await submitted(other, key="order-1", caller="ann")).id}) == 3
    assert (await submitted(jobs, key="order-1", caller="ann")) == ann


async def test_without_callers_ids_are_those_of_older_versions(replica: Replica, new_store: NewStore) -> None:
    """They share the store while a deployment is rolled out, and know nothing of a secret there."""
    jobs = await replica(ScriptedBackend(hang), new_store())
    assert (await submitted(jobs, key="order-1")).id == "20f3d1e968e9843052b7f34dcb33afaa"


async def test_replicas_without_a_secret_draw_one_together(
    replica: Replica, shared: SharedStore, redis_client: redis.Redis
) -> None:
    replicas = [await replica(ScriptedBackend(hang), await shared(), **CALLERS) for _ in range(5)]
    records = await asyncio.gather(*(submitted(jobs, key="order-1", caller="ann") for jobs in replicas))
    secret = str(redis_client.get("shangcai:secret"))
    assert len(secret) >= 43  # 256 bits in base64
    assert {record.id for record in records} == {keyed_id(secret)}
    assert await replicas[0].replays("ann", "order-1")


async def test_a_replica_alone_draws_a_secret_for_its_life(replica: Replica) -> None:
    jobs, other = [await replica(ScriptedBackend(hang), **CALLERS) for _ in range(2)]
    records = [await submitted(one, key="order-1", caller="ann") for one in (jobs, jobs, other)]
    assert records[0] == records[1]
    assert records[0].id != records[2].id
    assert "20f3d1e968e9843052b7f34dcb33afaa" not in {record.id for record in records}


async def test_a_given_secret_wins_and_is_not_stored(
    replica: Replica, shared: SharedStore, redis_client: redis.Redis
) -> None:
    await (await shared()).secret()
    drawn = redis_client.get("shangcai:secret")
    jobs = await replica(ScriptedBackend(hang), await shared(), callers_secret=SECRET, **CALLERS)
    assert (await submitted(jobs, key="order-1", caller="ann")).id == keyed_id(SECRET)
    assert redis_client.get("shangcai:secret") == drawn


async def test_a_store_that_has_lost_the_secret_gets_it_back(shared: SharedStore, redis_client: redis.Redis) -> None:
    """Or replicas that know it and such that do not would make two jobs of one key."""
    old = await shared()
    secret = await old.secret()
    redis_client.flushall()
    assert await old.secret() == secret
    assert await (await shared()).secret() == secret
    redis_client.flushall()
    drawn = await (await shared()).secret()  # by a replica that did not know it
    assert drawn != secret
    assert await old.secret() == drawn


async def test_without_the_store_a_key_waits_and_nothing_else_does(replica: Replica, closed_port: int) -> None:
    store = RedisStore(f"redis://127.0.0.1:{closed_port}", 60, 1_000, patience_seconds=1)
    jobs = await replica(ScriptedBackend(hang), store, **CALLERS)  # the start needs none
    with pytest.raises(ProblemError) as problem:
        await jobs.replays("ann", "order-1")
    assert (problem.value.kind, problem.value.problem.retry_after) == (problems.UNAVAILABLE, 5)


@pytest.mark.parametrize("kind", TRANSIENT)
async def test_a_failure_that_may_have_passed_is_tried_again(
    replica: Replica, new_store: NewStore, kind: ProblemType
) -> None:
    backend = ScriptedBackend(refuse(kind), complete)
    if kind.transient:
        backend = ScriptedBackend(*[refuse(kind)] * 8, complete)
    jobs = await replica(backend, new_store())
    failed = await ended(jobs, await submitted(jobs, key="k"))
    assert failed.state == "failed"
    again = await asyncio.gather(*(submitted(jobs, key="k") for _ in range(5)))
    assert {record.id for record in again} == {failed.id}
    record = await ended(jobs, again[0])
    assert (record.state, record.attempts, record.created != failed.created) == ("completed", 1, True)
    assert len([run for run in backend.runs if run.created != failed.created]) == 1
    assert await log_of(jobs, record) == ["running", "春", "result"]
    assert await submitted(jobs, key="k") == record  # a result is replayed


@pytest.mark.parametrize("kind", LASTING)
async def test_a_failure_that_would_come_again_is_replayed(
    replica: Replica, new_store: NewStore, kind: ProblemType
) -> None:
    backend = ScriptedBackend(refuse(kind))
    jobs = await replica(backend, new_store())
    failed = await ended(jobs, await submitted(jobs, key="k"))
    assert await submitted(jobs, key="k") == failed
    assert len(backend.runs) == 1


async def test_a_cancelled_job_stays_so(replica: Replica, new_store: NewStore) -> None:
    jobs = await replica(ScriptedBackend(hang), new_store())
    cancelled = await jobs.cancel((await submitted(jobs, key="k")).id)
    assert await submitted(jobs, key="k") == cancelled


async def test_another_request_does_not_take_the_place_of_a_failed_one(replica: Replica, new_store: NewStore) -> None:
    jobs = await replica(ScriptedBackend(refuse(problems.REFUSED_UPSTREAM)), new_store())
    failed = await ended(jobs, await submitted(jobs, key="k"))
    with pytest.raises(ProblemError) as problem:
        await submitted(jobs, GenerationRequest(prompt="秋"), key="k")
    assert problem.value.kind is problems.KEY_REUSED
    assert await jobs.find(failed.id) == failed


async def test_a_job_that_replaces_a_failed_one_takes_a_place_of_its_own(replica: Replica) -> None:
    jobs = await replica(ScriptedBackend(refuse(problems.REFUSED_UPSTREAM), hang), max_jobs=1)
    await ended(jobs, await submitted(jobs, key="k"))
    await submitted(jobs)
    with pytest.raises(ProblemError) as problem:
        await submitted(jobs, key="k")
    assert problem.value.kind is problems.OVERLOADED


async def test_what_a_run_of_the_failed_job_still_writes_is_refused(make: MakeStore) -> None:
    store = await make()
    await added(store, "a")
    claim = await claimed(store)
    await store.append("a", [("token", "old")], claim.generation)
    failure = ProblemError(problems.UNDELIVERED, "Because.").problem.model_dump_json(exclude_none=True)
    await store.finish("a", "failed", failure, 7)
    *_, last = await entries_of(store, "a")
    await store.add(new_record("a"))
    with pytest.raises(ClaimLost):
        await store.append("a", [("token", "late")], claim.generation)
    second = await claimed(store)
    await store.append("a", [("token", "new")], second.generation)
    await store.finish("a", "completed", "{}", 8, second.generation)
    for after in ("0-0", last.id):  # who has seen the failure sees all that follows
        assert pairs(await entries_of(store, "a", after)) == [("token", "new"), ("result", "{}")]


async def test_one_that_replaces_a_failed_one_is_not_forgotten_as_an_ended_one(shared: SharedStore) -> None:
    """The oldest ended jobs are forgotten where there are too many bytes."""
    store = await shared(most_bytes=2_000)
    failure = ProblemError(problems.UNDELIVERED, "Because.").problem.model_dump_json(exclude_none=True)
    await added(store, "a")
    await store.finish("a", "failed", failure, 7)
    await store.add(new_record("a"))
    for number in range(3):
        await added(store, f"other {number}")
        await store.finish(f"other {number}", "completed", json.dumps("x" * 1_000), time.time())
    assert await store.get("other 0") is None
    assert await store.get("a") is not None
