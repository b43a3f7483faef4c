"""What callers take is counted alike in memory and in Redis, there for all replicas together."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.waiting import eventually
from web.callers import redis_counters
from web.callers.counters import MemoryCounters, ShareCounters
from web.callers.redis_counters import RedisCounters
from web.callers.share import Share, Usage
from web.callers.shares import Shares

Counters = Callable[[], ShareCounters]

numbers = itertools.count()


@pytest.fixture(params=["memory", "redis"])
async def counters(request: pytest.FixtureRequest) -> AsyncIterator[Counters]:
    """Makes counters: of one replica, or of several that share a Redis."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with AsyncExitStack() as stack:

        def make() -> ShareCounters:
            made: ShareCounters = MemoryCounters() if url is None else RedisCounters(url)
            stack.push_async_callback(made.close)
            return made

        yield make


async def take(counters: ShareCounters, share: Share, cost: float = 1, caller: str = "ann", place: str = "") -> Usage:
    return await counters.take(caller, share, cost, place or f"place-{next(numbers)}")


HOURLY = Share(requests_per_minute=1 / 60, requests_burst=3)
"""Slow, so that a test takes as long as it likes."""


async def test_a_burst_passes_and_then_nothing(counters: Counters) -> None:
    counter = counters()
    left = [(await take(counter, HOURLY)).rates["requests"][0] for _ in range(3)]
    assert left == pytest.approx([2, 1, 0], abs=0.01)
    refused = await take(counter, HOURLY)
    assert refused.refused == "requests"
    assert refused.wait_s == pytest.approx(3600, abs=30)
    available, full_in = refused.rates["requests"]
    assert available < 0.01
    assert full_in == pytest.approx(3 * 3600, abs=30)


async def test_what_is_used_comes_back_with_time(counters: Counters) -> None:
    counter, share = counters(), Share(requests_per_minute=600, requests_burst=1)
    assert (await take(counter, share)).refused is None

    async def passes() -> bool:
        return (await take(counter, share)).refused is None

    await eventually(passes)


async def test_callers_have_shares_of_their_own(counters: Counters) -> None:
    counter = counters()
    for _ in range(3):
        await take(counter, HOURLY)
    assert (await take(counter, HOURLY)).refused == "requests"
    assert (await take(counter, HOURLY, caller="bob")).refused is None


async def test_cost_is_counted_by_what_a_request_asks_for(counters: Counters) -> None:
    counter, share = counters(), Share(cost_per_minute=1, cost_burst=100)
    assert (await take(counter, share, 60)).refused is None
    refused = await take(counter, share, 60)
    assert refused.refused == "cost"
    assert refused.wait_s == pytest.approx(20 * 60, abs=30)
    assert (await take(counter, share, 40)).refused is None


async def test_a_request_larger_than_the_burst_passes_when_all_is_left_and_is_paid_for(counters: Counters) -> None:
    counter, share = counters(), Share(cost_per_minute=1, cost_burst=100)
    usage = await take(counter, share, 300)
    assert usage.refused is None
    assert usage.rates["cost"][0] == 0
    refused = await take(counter, share, 1)
    assert refused.wait_s == pytest.approx(201 * 60, abs=30)


async def test_what_one_limit_refuses_uses_up_nothing_of_another(counters: Counters) -> None:
    counter = counters()
    share = Share(requests_per_minute=1 / 60, requests_burst=5, cost_per_minute=1, cost_burst=10)
    assert (await take(counter, share, 10)).refused is None
    for _ in range(10):
        assert (await take(counter, share, 10)).refused == "cost"
    assert (await take(counter, share, 10)).rates["requests"][0] == pytest.approx(4, abs=0.01)


async def test_places_are_given_back(counters: Counters) -> None:
    counter, share = counters(), Share(concurrency=2)
    assert [(await take(counter, share, place=place)).under_way for place in ("a", "b")] == [1, 2]
    refused = await take(counter, share)
    assert (refused.refused, refused.under_way) == ("concurrency", 2)
    await counter.release("ann", "a")
    await counter.release("ann", "a")  # twice, and one that never was
    await counter.release("ann", "never")
    assert (await take(counter, share)).refused is None
    assert (await take(counter, share)).refused == "concurrency"


async def test_an_unlimited_part_is_not_counted(counters: Counters) -> None:
    counter, share = counters(), Share(concurrency=1000)
    assert [(await take(counter, share, 1e9)).refused for _ in range(50)] == [None] * 50


# Replicas


async def test_replicas_that_share_a_redis_count_together(redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        replicas = [RedisCounters(redis_url) for _ in range(3)]
        for replica in replicas:
            stack.push_async_callback(replica.close)
        share = Share(concurrency=4, requests_per_minute=1 / 60, requests_burst=6)
        used = await asyncio.gather(*(take(replicas[number % 3], share, place=f"{number}") for number in range(20)))
        assert sum(usage.refused is None for usage in used) == 4
        passed = [number for number, usage in enumerate(used) if usage.refused is None]
        for number in passed:
            await replicas[(number + 1) % 3].release("ann", f"{number}")
        again = await asyncio.gather(*(take(replicas[number % 3], share) for number in range(20)))
        assert sum(usage.refused is None for usage in again) == 2


async def test_the_places_of_a_killed_replica_come_back_and_those_of_a_living_one_stay(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, killed = RedisCounters(redis_url), RedisCounters(redis_url)
    share = Share(concurrency=2)
    monkeypatch.setattr(redis_counters, "LEASE_SECONDS", 0.2)
    await take(living, share, place="living")
    await take(killed, share, place="killed")
    await killed.close()
    monkeypatch.setattr(redis_counters, "LEASE_SECONDS", 60)
    await living.renew("ann", "living")  # even if it has just run out

    async def passes() -> bool:
        return (await take(living, share)).refused is None

    await eventually(passes)
    assert (await take(living, share)).refused == "concurrency"
    await living.close()


async def test_without_redis_each_replica_counts_for_itself_and_says_so_once(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(redis_counters, "OUTAGE_SECONDS", 0)
    counter, share = RedisCounters(redis_url), Share(concurrency=2)
    broken = RedisCounters("redis://127.0.0.1:1/0")
    assert [(await take(broken, share, place=place)).refused for place in ("a", "b", "c")] == [
        None,
        None,
        "concurrency",
    ]
    await broken.release("ann", "a")
    await broken.renew("ann", "b")
    assert (await take(broken, share, place="d")).refused is None
    lost = [record for record in caplog.records if "each replica goes by its own counts" in record.getMessage()]
    assert len(lost) == 1

    broken._client, broken._take = counter._client, counter._take  # it is back
    assert (await take(broken, share)).refused is None
    assert [record.levelname for record in caplog.records if "in the store again" in record.getMessage()] == ["INFO"]
    await counter.close()


async def test_after_an_outage_redis_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = RedisCounters("redis://127.0.0.1:1/0")
    asked = []

    async def fail(**_: Any) -> Any:
        asked.append(1)
        raise OSError("away")

    monkeypatch.setattr(broken, "_take", fail)
    for _ in range(5):
        assert (await take(broken, HOURLY)).rates
    assert asked == [1]
    await broken.close()


async def test_a_cancellation_that_redis_py_loses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, asked = RedisCounters("redis://127.0.0.1:1/0"), asyncio.Event()

    async def lose(**_: Any) -> Any:
        try:
            asked.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return 1

    monkeypatch.setattr(counter, "_renew", lose)
    renewing = asyncio.create_task(counter.renew("ann", "place"))
    await asked.wait()
    renewing.cancel()
    await asyncio.wait({renewing})
    assert renewing.cancelled()
    await counter.close()


async def test_a_request_that_is_cancelled_while_it_is_counted_keeps_no_place(redis_url: str) -> None:
    counter = RedisCounters(redis_url)
    shares, take_one = Shares(lambda _: Share(concurrency=1), counter), counter.take

    async def counted_and_cancelled(*arguments: Any) -> Usage:
        await take_one(*arguments)
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "take", counted_and_cancelled)
        with pytest.raises(asyncio.CancelledError):
            async with shares.place("ann", 1):
                pass
    async with shares.place("ann", 1):
        pass
    await shares.close()


async def test_counts_are_forgotten_once_they_say_nothing(redis_url: str) -> None:
    counter = RedisCounters(redis_url)
    await take(counter, Share(requests_per_minute=600, concurrency=5), place="a")
    for name in ("rates", "places"):
        assert 0 < await counter._client.pttl(f"shangcai:share:{{ann}}:{name}") <= 31_000
    await counter.close()
