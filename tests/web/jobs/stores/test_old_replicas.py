"""Replicas that know of no callers, as of commit 31fe71b, share the queue with those that do, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.support.jobs import SharedStore, claimed, new_record

QUEUE = "shangcai:queue:poet"
LEASE = 15_000


class OldReplica:
    """Does literally what the queue of 31fe71b did."""

    def __init__(self, client: Any) -> None:
        self._redis = client
        client.xgroup_create(QUEUE, "web", id="0", mkstream=True)

    def add(self, job: str) -> None:
        record = new_record(job)
        fields = {"model": "poet", "kind": "text", "order": record.request, "digest": "d", "headers": "{}"}
        times = {"created": str(record.created), "deadline": str(record.deadline)}
        entry = self._redis.xadd(QUEUE, {"job": job})
        self._redis.hset(f"shangcai:job:{job}", mapping={**fields, **times, "entry": entry})
        self._redis.zadd("shangcai:open", {job: record.deadline})

    def claim(self) -> str | None:
        idle = self._redis.xpending_range(QUEUE, "web", min="-", max="+", count=1, idle=LEASE)
        entries = [entry["message_id"] for entry in idle]
        found = self._redis.xclaim(QUEUE, "web", "replica", LEASE, entries) if entries else None
        if not found:
            read = self._redis.xreadgroup("web", "replica", {QUEUE: ">"}, count=1)
            found = read[0][1] if read else None
        return found[0][1]["job"] if found else None

    def release(self, job: str) -> None:
        entry = self._redis.hget(f"shangcai:job:{job}", "entry")
        self._redis.xclaim(QUEUE, "web", "replica", 0, [entry], idle=LEASE, justid=True)

    def finish(self, job: str) -> None:
        entry = self._redis.hget(f"shangcai:job:{job}", "entry")
        self._redis.hset(f"shangcai:job:{job}", mapping={"end": "completed", "ended": "2.0", "outcome": "{}"})
        self._redis.zrem("shangcai:open", job)
        self._redis.xack(QUEUE, "web", entry)
        self._redis.xdel(QUEUE, entry)


@pytest.fixture
def old(redis_client: redis.Redis) -> OldReplica:
    return OldReplica(redis_client)


async def test_what_an_old_replica_adds_is_claimed_in_turn(shared: SharedStore, old: OldReplica) -> None:
    store = await shared()
    for number in range(3):
        old.add(f"old{number}")
    for number in range(2):
        await store.add(new_record(f"a{number}", caller="a"))
    assert [(await claimed(store)).job for _ in range(5)] == ["a0", "old0", "a1", "old1", "old2"]


async def test_an_old_replica_claims_what_waits_in_a_fair_order(
    shared: SharedStore, old: OldReplica, redis_client: redis.Redis
) -> None:
    """As after a roll-back, where no new replica is left."""
    store = await shared()
    jobs = [f"{caller}{number}" for caller in "abc" for number in range(3)]
    for job in jobs:
        await store.add(new_record(job, caller=job[0]))
    assert (await claimed(store)).job == "a0"  # the others are waiting in order by now
    await store.add(new_record("d0", caller="d"))
    assert [old.claim() for _ in range(10)] == [*jobs[1:], "d0", None]
    for job in (*jobs, "d0"):
        old.finish(job)
    assert redis_client.xlen(QUEUE) == 0


@pytest.mark.parametrize("leave", [OldReplica.finish, OldReplica.release, lambda *_: None])
async def test_what_an_old_replica_has_taken_is_passed_over(
    shared: SharedStore, old: OldReplica, leave: Callable[[OldReplica, str], None], redis_client: redis.Redis
) -> None:
    store = await shared()
    for job in ("a0", "a1", "a2", "b0", "b1"):
        await store.add(new_record(job, caller=job[0]))
    assert (await claimed(store)).job == "a0"
    taken = old.claim()
    assert taken == "a1"
    leave(old, taken)
    released = ["a1"] if leave is OldReplica.release else []
    found = [(await claimed(store)).job for _ in range(3 + len(released))]
    assert found == [*released, "b0", "a2", "b1"]
    assert not redis_client.exists("shangcai:waiting:poet")


async def test_both_work_on_one_queue_and_no_job_is_taken_twice(shared: SharedStore, old: OldReplica) -> None:
    store = await shared()
    jobs = [f"{'abcd'[number % 4]}{number}" for number in range(40)]
    found: list[str] = []

    def claim_old() -> None:
        job = old.claim()
        assert job is not None
        found.append(job)

    for index, job in enumerate(jobs):
        if index % 2:
            old.add(job)
        else:
            await store.add(new_record(job, caller=job[0]))
        if index % 5 == 0:
            found.append((await claimed(store)).job)
        if index % 7 == 6:
            claim_old()
    while len(found) < len(jobs):
        found.append((await claimed(store)).job)
        if len(found) < len(jobs):
            claim_old()
    assert sorted(found) == sorted(jobs)
    assert old.claim() is None
