"""What both stores promise of jobs, their states and the queue."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.support.jobs import (
    LIMIT,
    MakeStore,
    added,
    claimed,
    entries_of,
    new_record,
    pairs,
)
from tests.support.waiting import eventually
from web.jobs.record import JobRecord
from web.jobs.store import JobStore
from web.jobs.stores import redis_queue


async def test_every_replica_receives_a_broadcast(store: JobStore, make: MakeStore) -> None:
    stores = [store, await make()] if store.shared else [store]
    received: list[set[str]] = [set() for _ in stores]
    for one, messages in zip(stores, received, strict=True):
        one.subscribe(messages.add)

    async def all_received() -> bool:  # they may not listen yet
        await store.broadcast("春")
        return all(messages == {"春"} for messages in received)

    await eventually(all_received)


async def place(store: JobStore, record: JobRecord) -> int | None:
    found = await store.place(record)
    return None if found is None else found.position


# Jobs


async def test_a_job_is_stored_as_it_was_added(store: JobStore) -> None:
    new = new_record(headers={"X-Request-Id": "r", "traceparent": "春"})
    assert await store.add(new) == new
    assert await store.get("a") == new
    assert new.state == "queued"


async def test_an_unknown_job_is_none(store: JobStore) -> None:
    assert await store.get("a") is None
    assert await place(store, new_record()) is None
    assert await store.finish("a", "failed", "{}", 1) is False
    assert await store.start("a", 1) is False
    await store.reset("a")
    assert await store.get("a") is None


async def test_of_two_jobs_with_one_id_the_first_stays_and_is_queued_once(store: JobStore) -> None:
    first = new_record(digest="first")
    assert await store.add(first) == first
    assert await store.add(new_record(digest="second")) == first
    assert await store.get("a") == first
    await added(store, "b")
    assert [(await claimed(store)).job, (await claimed(store)).job] == ["a", "b"]
    assert await store.open_jobs() == 2


async def test_of_many_jobs_with_one_id_at_once_one_stays(store: JobStore) -> None:
    new = await asyncio.gather(*(store.add(new_record(digest=str(number))) for number in range(20)))
    assert len({stored.digest for stored in new}) == 1
    await added(store, "b")
    assert [(await claimed(store)).job, (await claimed(store)).job] == ["a", "b"]


async def test_a_job_that_is_not_queued_cannot_be_claimed(store: JobStore) -> None:
    await store.add(new_record("a"), queued=False)
    await added(store, "b")
    assert (await claimed(store)).job == "b"
    assert await place(store, new_record("a")) is None


async def test_an_ended_job_is_forgotten_after_a_time(make: MakeStore) -> None:
    store = await make(keep_seconds=0.4)
    await added(store, "a", "b")
    await store.append("a", [("token", "x")])
    await store.finish("a", "completed", "end", time.time())

    async def forgotten() -> bool:
        await store.overdue(time.time())  # the reaper asks every second
        return await store.get("a") is None

    assert not await forgotten()
    await eventually(forgotten)
    assert await entries_of(store, "a") == []
    assert await store.get("b") is not None
    assert await store.open_jobs() == 1
    again = new_record(digest="again")
    assert await store.add(again) == again


# From state to state


async def test_a_start_is_an_attempt(store: JobStore) -> None:
    await added(store, "a")
    assert await store.start("a", 5.5) is True
    stored = await store.get("a")
    assert stored is not None
    assert (stored.state, stored.started, stored.attempts) == ("running", 5.5, 1)


async def test_a_running_job_is_not_started_again(store: JobStore) -> None:
    """Brokers deliver progress twice, and at once."""
    await added(store, "a")
    started = await asyncio.gather(*(store.start("a", number) for number in range(1, 11)))
    assert sorted(started) == [False] * 9 + [True]
    stored = await store.get("a")
    assert stored is not None
    assert stored.attempts == 1


async def test_a_reset_job_is_queued_and_its_attempts_are_counted(store: JobStore) -> None:
    await added(store, "a")
    for attempt in (1, 2, 3):
        assert await store.start("a", 5)
        await store.reset("a")
        stored = await store.get("a")
        assert stored is not None
        assert (stored.state, stored.started, stored.attempts) == ("queued", None, attempt)


@pytest.mark.parametrize(("end", "event"), [("completed", "result"), ("failed", "error"), ("cancelled", "error")])
async def test_an_end_is_stored_and_logged(store: JobStore, end: Any, event: str) -> None:
    await added(store, "a")
    assert await store.finish("a", end, '{"text":"春"}', 7.5) is True
    stored = await store.get("a")
    assert stored is not None
    assert (stored.state, stored.ended, stored.outcome) == (end, 7.5, '{"text":"春"}')
    assert pairs(await entries_of(store, "a")) == [(event, '{"text":"春"}')]


async def test_after_its_end_nothing_changes(store: JobStore) -> None:
    await added(store, "a")
    assert await store.finish("a", "completed", "1", 7)
    stored = await store.get("a")
    assert await store.finish("a", "failed", "2", 8) is False
    assert await store.start("a", 8) is False
    await store.reset("a")
    await store.append("a", [("token", "late")])
    await store.append_progress("a", 5, lambda _: ("token", "late"))
    assert await store.get("a") == stored
    [last] = await entries_of(store, "a")
    assert (last.event, last.data) == ("result", "1")
    assert await entries_of(store, "a", last.id) == []


async def test_of_many_ends_at_once_one_counts(store: JobStore) -> None:
    await added(store, "a")
    ends = await asyncio.gather(*(store.finish("a", "completed", str(number), 7) for number in range(50)))
    assert ends.count(True) == 1
    winner = str(ends.index(True))
    stored = await store.get("a")
    assert stored is not None
    assert stored.outcome == winner
    assert pairs(await entries_of(store, "a")) == [("result", winner)]


@pytest.mark.usefixtures("only_messages")
async def test_those_who_wait_for_an_end_are_woken(store: JobStore) -> None:
    await added(store, "a")
    waiting = [asyncio.create_task(store.wait_for_end("a")) for _ in range(20)]
    await store.start("a", 5)
    await store.append("a", [("token", "x")])
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await store.finish("a", "cancelled", "{}", 7)
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*waiting)


async def test_waiting_for_the_end_of_an_ended_or_unknown_job_returns_at_once(store: JobStore) -> None:
    await added(store, "a")
    await store.finish("a", "cancelled", "{}", 7)
    async with asyncio.timeout(LIMIT):
        await store.wait_for_end("a")
        await store.wait_for_end("unknown")


# The queue


async def test_jobs_are_claimed_in_order_and_by_model(store: JobStore) -> None:
    await store.add(new_record("other", model="painter"))
    await added(store, *"abc")
    claims = [await claimed(store) for _ in range(3)]
    assert [(claim.job, claim.model) for claim in claims] == [("a", "poet"), ("b", "poet"), ("c", "poet")]
    assert (await claimed(store, "painter")).job == "other"


async def test_claiming_waits_for_the_next_job(store: JobStore) -> None:
    first, second = (asyncio.create_task(claimed(store)) for _ in range(2))
    await asyncio.sleep(0.05)
    assert not first.done()
    await added(store, "a", "b")
    assert {(await first).job, (await second).job} == {"a", "b"}


async def test_a_position_is_the_number_of_jobs_before(store: JobStore) -> None:
    jobs = [await store.add(new_record(job)) for job in "abcd"]
    assert [await place(store, job) for job in jobs] == [0, 1, 2, 3]
    await claimed(store)
    await store.start("a", 5)
    assert [await place(store, job) for job in jobs[1:]] == [1, 2, 3]


async def test_a_running_job_has_no_position(store: JobStore) -> None:
    await added(store, "a")
    await claimed(store)
    await store.start("a", 5)
    stored = await store.get("a")
    assert stored is not None
    assert await place(store, stored) is None


async def test_an_acknowledged_job_has_no_position_and_counts_for_no_other(store: JobStore) -> None:
    """A job that went to a broker is queued until a predictor begins with it, but not here."""
    a, b = [await store.add(new_record(job)) for job in "ab"]
    await store.acknowledge(await claimed(store))
    assert (await place(store, a), await place(store, b)) == (None, 0)


async def test_a_job_cancelled_while_queued_counts_for_no_other_position(store: JobStore) -> None:
    _, b, c = [await store.add(new_record(job)) for job in "abc"]
    await store.finish("b", "cancelled", "{}", 7)
    assert (await place(store, b), await place(store, c)) == (None, 1)
    assert [(await claimed(store)).job, (await claimed(store)).job] == ["a", "c"]


async def test_a_released_claim_is_for_others(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.1)
    await added(store, "a")
    await store.release(await claimed(store))
    claim = await claimed(store)
    assert claim.job == "a"
    await store.renew([claim])
    await store.acknowledge(claim)
    await added(store, "b")
    assert (await claimed(store)).job == "b"


async def test_jobs_are_open_until_their_end(store: JobStore) -> None:
    await added(store, *"abc")
    await claimed(store)
    await store.start("a", 5)
    assert await store.open_jobs() == 3
    for job, left in (("a", 2), ("c", 1), ("c", 1), ("b", 0)):
        await store.finish(job, "failed", "{}", 7)
        assert await store.open_jobs() == left


async def test_open_jobs_are_overdue_after_their_deadline(store: JobStore) -> None:
    now = time.time()
    for job, deadline in (("a", now + 10), ("b", now + 20), ("c", now + 30), ("d", now + 10)):
        await store.add(new_record(job, deadline=deadline))
    await store.finish("d", "failed", "{}", now)
    await store.start("b", now)
    assert await store.overdue(now + 9) == []
    assert await store.overdue(now + 10) == ["a"]
    assert sorted(await store.overdue(now + 25)) == ["a", "b"]
