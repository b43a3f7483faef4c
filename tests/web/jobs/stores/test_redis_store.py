"""What only the shared store promises: replicas see the same jobs, and expired claims are taken over."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
import redis

from tests.support.jobs import (
    LIMIT,
    SharedStore,
    added,
    claimed,
    entries_of,
    new_record,
    pairs,
)
from web.jobs.stores import redis_queue


async def test_replicas_see_the_same_jobs(shared: SharedStore) -> None:
    one, other = await shared(), await shared()
    assert one.shared
    came = new_record()
    await one.add(came)
    assert await other.get("a") == came
    assert await other.add(new_record(digest="another")) == came
    assert await other.open_jobs() == 1
    watching = asyncio.create_task(entries_of(one, "a"))
    waiting = asyncio.create_task(one.wait_for_end("a"))
    claim = await claimed(other)
    assert claim.job == "a"
    await other.start("a", 5)
    await other.append("a", [("token", "x")])
    await other.append_progress("a", 3, lambda _: ("token", "y"))
    assert await other.finish("a", "completed", "end", 7)
    async with asyncio.timeout(LIMIT):
        assert pairs(await watching) == [("token", "x"), ("token", "y"), ("result", "end")]
        await waiting
    assert await one.finish("a", "failed", "late", 8) is False


async def test_no_job_is_claimed_by_two_replicas(shared: SharedStore) -> None:
    stores = [await shared() for _ in range(3)]
    claiming = [asyncio.create_task(claimed(store)) for store in stores * 10]
    await asyncio.gather(*(stores[0].add(new_record(str(number))) for number in range(30)))
    claims = await asyncio.gather(*claiming)
    assert sorted(int(claim.job) for claim in claims) == list(range(30))


async def test_a_claim_that_is_not_renewed_is_taken_over(shared: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    one, other = await shared(), await shared()
    await added(one, "a", "b")
    kept, lost = await claimed(one), await claimed(one)
    claiming = asyncio.create_task(claimed(other))
    begun = time.monotonic()
    while not claiming.done():
        await one.renew([kept])
        await asyncio.sleep(0.05)
    assert (await claiming) == replace(lost, generation=2)
    assert time.monotonic() - begun >= 0.4
    await other.acknowledge(lost)
    claiming = asyncio.create_task(claimed(other))
    await asyncio.sleep(0.2)
    assert not claiming.done()
    assert await claiming == replace(kept, generation=2)  # which is not renewed any more


async def test_an_expired_claim_is_found_behind_many_renewed_ones(
    shared: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    one, other = await shared(), await shared()
    await added(one, *map(str, range(40)), "orphan")
    *kept, orphan = [await claimed(one) for _ in range(41)]
    claiming = asyncio.create_task(claimed(other))
    async with asyncio.timeout(LIMIT):
        while not claiming.done():
            await one.renew(kept)
            await asyncio.sleep(0.05)
    assert await claiming == replace(orphan, generation=2)


async def test_replicas_that_come_and_go_leave_nothing_behind(shared: SharedStore, redis_client: redis.Redis) -> None:
    for number in range(5):
        store = await shared()
        await added(store, str(number))
        await store.acknowledge(await claimed(store))
        await store.finish(str(number), "failed", "{}", 7)
        await store.close()
    [group] = redis_client.xinfo_groups("shangcai:queue:poet")
    assert (group["consumers"], group["pending"]) == (2, 0)
    assert redis_client.xlen("shangcai:queue:poet") == 0
    assert not redis_client.exists("shangcai:waiting:poet")


async def test_everything_that_is_stored_of_a_job_expires(shared: SharedStore, redis_client: redis.Redis) -> None:
    store = await shared(keep_seconds=100)

    def left() -> dict[str, int]:
        keys = [*redis_client.scan_iter("shangcai:job:*"), *redis_client.scan_iter("shangcai:log:*")]
        return {key.removeprefix("shangcai:"): int(redis_client.ttl(key)) for key in keys}

    await store.add(new_record(deadline=time.time() + 1_000))
    assert left() == {"job:a": pytest.approx(1_100, abs=3)}
    await store.start("a", 5)
    await store.append_progress("a", 1, lambda _: ("token", "x"))
    assert left() == {"job:a": pytest.approx(1_100, abs=3), "log:a": pytest.approx(1_100, abs=3)}
    await store.append("a", [("token", "x")])
    assert left() == {"job:a": pytest.approx(1_100, abs=3), "log:a": pytest.approx(1_100, abs=3)}
    await store.finish("a", "failed", "{}", 7)
    assert left() == {"job:a": pytest.approx(100, abs=3), "log:a": pytest.approx(100, abs=3)}
    for job in ("a", "unknown"):
        await store.append(job, [("token", "late")])
        await store.append_progress(job, 9, lambda _: ("token", "late"))
        await store.reset(job)
    assert left() == {"job:a": pytest.approx(100, abs=3), "log:a": pytest.approx(100, abs=3)}


async def test_a_job_that_is_forgotten_before_its_end_is_not_open_for_ever(shared: SharedStore) -> None:
    """While every replica was at zero."""
    store = await shared(keep_seconds=1)
    await store.add(new_record(deadline=time.time() - 10))
    assert await store.get("a") is None
    assert await store.overdue(time.time()) == ["a"]
    assert await store.finish("a", "failed", "{}", time.time()) is False
    assert await store.overdue(time.time()) == []
    assert await store.open_jobs() == 0
