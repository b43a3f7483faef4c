"""Whose job is next, and where a job is in the queue: fair between callers, in both stores."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from tests.support.jobs import claimed, new_record
from web.jobs.record import JobRecord, QueuePlace
from web.jobs.store import JobStore


async def add(store: JobStore, *jobs: str, cost: float = 1.0) -> list[JobRecord]:
    """Jobs are named by their caller and a number."""
    return [await store.add(new_record(job, caller=job[0], cost=cost)) for job in jobs]


async def claims(store: JobStore, count: int) -> list[str]:
    return [(await claimed(store)).job for _ in range(count)]


async def positions(store: JobStore, records: list[JobRecord]) -> list[int | None]:
    places = [await store.place(record) for record in records]
    return [None if place is None else place.position for place in places]


async def test_callers_take_turns(store: JobStore) -> None:
    await add(store, "a1", "a2", "a3", "b1", "c1", "b2")
    assert await claims(store, 6) == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_a_small_caller_is_next_however_many_wait(store: JobStore) -> None:
    await add(store, *(f"a{number}" for number in range(50)))
    for number in range(5):
        await claims(store, 3)
        await add(store, f"b{number}")
        assert await claims(store, 1) == [f"b{number}"]


async def test_the_next_job_of_others_is_claimed(store: JobStore) -> None:
    await add(store, "a1", "a2", "b1", "c1")
    claim = await store.claim("poet", but_not={"a", "c"})
    assert claim is not None
    assert (claim.job, claim.caller) == ("b1", "b")
    waiting = asyncio.create_task(store.claim("poet", but_not={"a", "c"}))
    await add(store, "a3", "d1")
    claim = await waiting
    assert claim is None or claim.job == "d1"  # a Redis may have woken it for a3
    assert sorted(await claims(store, 4 if claim else 5)) == sorted(
        {"a1", "a2", "c1", "a3", "d1"} - {claim and claim.job}
    )


async def test_turns_are_by_cost(store: JobStore) -> None:
    await add(store, *(f"a{number}" for number in range(10)), cost=4.5)
    await add(store, *(f"b{number}" for number in range(40)), cost=1.5)
    assert Counter(job[0] for job in await claims(store, 16)) == {"a": 4, "b": 12}


async def test_one_that_comes_back_at_once_does_not_go_before_all_others(store: JobStore) -> None:
    await add(store, *(f"a{number}" for number in range(10)))
    await add(store, "b0")
    found: list[str] = []
    while len(found) < 12:
        found += await claims(store, 1)
        if found[-1][0] == "b":
            await add(store, f"b{len(found)}")
    assert Counter(job[0] for job in found) == {"a": 6, "b": 6}


async def test_jobs_that_were_cancelled_while_they_waited_are_not_charged(store: JobStore) -> None:
    await add(store, *(f"a{number}" for number in range(20)), cost=3)
    await add(store, "b1", "b2")
    for number in range(19):
        await store.finish(f"a{number}", "cancelled", "{}", 7)
    assert await claims(store, 3) == ["a19", "b1", "b2"]


async def test_a_released_job_is_next(store: JobStore) -> None:
    await add(store, "a1", "a2", "b1", "b2")
    claim = await claimed(store)
    await claimed(store)
    await store.release(claim)
    assert await claims(store, 3) == ["a1", "a2", "b2"]


async def test_a_position_counts_what_is_due_before(store: JobStore) -> None:
    first = await add(store, *(f"a{number}" for number in range(5)))
    second = await add(store, "b0", "b1")
    assert await positions(store, first + second) == [0, 2, 4, 5, 6, 1, 3]
    await claims(store, 2)
    assert await positions(store, first + second) == [0, 2, 4, 5, 6, 1, 3]
    assert await store.place(second[1]) == QueuePlace(3, 2)
    await store.finish("a1", "cancelled", "{}", 7)
    await store.finish("a0", "completed", "{}", 7)
    assert await positions(store, first[2:] + second) == [1, 3, 4, 0, 2]
    assert await store.place(first[1]) is None


async def test_a_position_is_by_cost(store: JobStore) -> None:
    large = await add(store, "a0", "a1", cost=10)
    small = await add(store, *(f"b{number}" for number in range(30)))
    assert await positions(store, large) == [0, 11]
    assert await positions(store, small[:12]) == [*range(1, 11), 12, 13]


async def test_the_positions_are_the_order_of_the_claims(store: JobStore) -> None:
    """Where each caller's jobs cost the same."""
    random = Random(7)
    records: list[JobRecord] = []
    for number in range(60):
        caller = random.choice("abbcccc")
        records += await add(store, f"{caller}{number}", cost={"a": 8.0, "b": 2.0, "c": 1.0}[caller])
        if number % 5 == 4:
            await store.finish((await claimed(store)).job, "completed", "{}", 7)
    found = {
        record.id: position for record in records if (position := (await positions(store, [record]))[0]) is not None
    }
    expected = sorted(found, key=found.__getitem__)
    assert sorted(found.values()) == list(range(len(found)))
    assert await claims(store, len(found)) == expected


async def test_many_who_ask_for_a_place_cost_one_look_at_the_queue(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in ("memory", "redis"):
        monkeypatch.setattr(f"web.jobs.stores.{queue}_queue.PLACE_SECONDS", 60)
    [_, record] = await add(store, "a0", "a1")
    places = await asyncio.gather(*(store.place(record) for _ in range(50)))
    assert places == [QueuePlace(1, 0)] * 50
    await claimed(store)
    assert (await store.place(record)) in (QueuePlace(1, 0), QueuePlace(1, 1))
