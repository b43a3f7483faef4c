"""What a store promises, whichever it is, and what only the shared one can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from contract import ProblemError
from web.jobs import redis_queue, redis_store
from web.jobs.memory_store import MemoryStore
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry
from web.jobs.redis_store import RedisStore
from web.jobs.store import JobStore

LIMIT = 10.0
KEEP = 60.0

Make = Callable[..., Awaitable[JobStore]]
Shared = Callable[..., Awaitable[RedisStore]]


def record(job: str = "a", **changes: Any) -> JobRecord:
    now = time.time()
    kept = JobRecord(
        id=job,
        model="poet",
        kind="text",
        request='{"prompt":"春"}',
        digest="d",
        created=now,
        deadline=now + 60,
        headers={"X-Request-Id": "r"},
    )
    return replace(kept, **changes)


async def added(store: JobStore, *jobs: str) -> None:
    for job in jobs:
        await store.add(record(job))


async def seen(store: JobStore, job: str, after: str = BEGINNING) -> list[LogEntry]:
    """Everything up to the end."""
    async with asyncio.timeout(LIMIT):
        return [entry async for entry in store.watch(job, after)]


def told(entries: list[LogEntry]) -> list[tuple[str, str]]:
    return [(entry.event, entry.data) for entry in entries]


async def taken(store: JobStore, model: str = "poet") -> Claim:
    async with asyncio.timeout(LIMIT):
        return await store.claim(model)


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT):
        while not await reached():
            await asyncio.sleep(0.02)


@pytest.fixture
async def shared(redis_url: str) -> AsyncGenerator[Shared]:
    """A replica's store on the same Redis as all others."""
    stores: list[RedisStore] = []

    async def make(
        url: str = redis_url, keep_seconds: float = KEEP, log_entries: int = 1_000, patience_seconds: float = 5
    ) -> RedisStore:
        store = RedisStore(url, keep_seconds, log_entries, patience_seconds)
        stores.append(store)
        await store.open()
        return store

    yield make
    for store in stores:
        await store.close()


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """A store of either sort."""
    if request.param == "redis":
        made: Make = request.getfixturevalue("shared")
        return made

    async def make(keep_seconds: float = KEEP, log_entries: int = 1_000) -> JobStore:
        return MemoryStore(keep_seconds, 1_000_000, log_entries)

    return make


@pytest.fixture
async def store(make: Make) -> JobStore:
    return await make()


async def test_what_is_spread_is_heard_by_all(store: JobStore, make: Make) -> None:
    stores = [store, await make()] if store.shared else [store]
    heard: list[set[str]] = [set() for _ in stores]
    for one, news in zip(stores, heard, strict=True):
        one.subscribe(news.add)

    async def all_heard() -> bool:  # they begin to listen some time
        await store.broadcast("春")
        return all(news == {"春"} for news in heard)

    await until(all_heard)


# JobService


async def test_a_job_is_kept_as_it_came(store: JobStore) -> None:
    came = record(headers={"X-Request-Id": "r", "traceparent": "春"})
    assert await store.add(came) == came
    assert await store.get("a") == came
    assert came.state == "queued"


async def test_an_unknown_job_is_none(store: JobStore) -> None:
    assert await store.get("a") is None
    assert await store.position(record()) is None
    assert await store.finish("a", "failed", "{}", 1) is False
    assert await store.start("a", 1) is False
    await store.reset("a")
    assert await store.get("a") is None


async def test_of_two_jobs_with_one_id_the_first_stays_and_is_queued_once(store: JobStore) -> None:
    first = record(digest="first")
    assert await store.add(first) == first
    assert await store.add(record(digest="second")) == first
    assert await store.get("a") == first
    await added(store, "b")
    assert [(await taken(store)).job, (await taken(store)).job] == ["a", "b"]
    assert await store.open_jobs() == 2


async def test_of_many_jobs_with_one_id_at_once_one_stays(store: JobStore) -> None:
    came = await asyncio.gather(*(store.add(record(digest=str(number))) for number in range(20)))
    assert len({kept.digest for kept in came}) == 1
    await added(store, "b")
    assert [(await taken(store)).job, (await taken(store)).job] == ["a", "b"]


async def test_a_job_that_is_not_queued_is_taken_by_nobody(store: JobStore) -> None:
    await store.add(record("a"), queued=False)
    await added(store, "b")
    assert (await taken(store)).job == "b"
    assert await store.position(record("a")) is None


# The way through the states


async def test_a_start_is_an_attempt(store: JobStore) -> None:
    await added(store, "a")
    assert await store.start("a", 5.5) is True
    kept = await store.get("a")
    assert kept is not None
    assert (kept.state, kept.started, kept.attempts) == ("running", 5.5, 1)


async def test_what_is_running_is_not_started_again(store: JobStore) -> None:
    """Brokers tell it twice, and at once."""
    await added(store, "a")
    started = await asyncio.gather(*(store.start("a", number) for number in range(1, 11)))
    assert sorted(started) == [False] * 9 + [True]
    kept = await store.get("a")
    assert kept is not None
    assert kept.attempts == 1


async def test_what_is_restarted_is_queued_and_its_attempts_are_counted(store: JobStore) -> None:
    await added(store, "a")
    for attempt in (1, 2, 3):
        assert await store.start("a", 5)
        await store.reset("a")
        kept = await store.get("a")
        assert kept is not None
        assert (kept.state, kept.started, kept.attempts) == ("queued", None, attempt)


@pytest.mark.parametrize(("end", "event"), [("completed", "result"), ("failed", "error"), ("cancelled", "error")])
async def test_an_end_is_kept_and_told(store: JobStore, end: Any, event: str) -> None:
    await added(store, "a")
    assert await store.finish("a", end, '{"text":"春"}', 7.5) is True
    kept = await store.get("a")
    assert kept is not None
    assert (kept.state, kept.ended, kept.outcome) == (end, 7.5, '{"text":"春"}')
    assert told(await seen(store, "a")) == [(event, '{"text":"春"}')]


async def test_after_its_end_nothing_changes(store: JobStore) -> None:
    await added(store, "a")
    assert await store.finish("a", "completed", "1", 7)
    kept = await store.get("a")
    assert await store.finish("a", "failed", "2", 8) is False
    assert await store.start("a", 8) is False
    await store.reset("a")
    await store.append("a", [("token", "late")])
    await store.append_progress("a", 5, lambda _: ("token", "late"))
    assert await store.get("a") == kept
    [last] = await seen(store, "a")
    assert (last.event, last.data) == ("result", "1")
    assert await seen(store, "a", last.id) == []


async def test_of_many_ends_at_once_one_counts(store: JobStore) -> None:
    await added(store, "a")
    ends = await asyncio.gather(*(store.finish("a", "completed", str(number), 7) for number in range(50)))
    assert ends.count(True) == 1
    winner = str(ends.index(True))
    kept = await store.get("a")
    assert kept is not None
    assert kept.outcome == winner
    assert told(await seen(store, "a")) == [("result", winner)]


async def test_whoever_waits_for_an_end_is_told_of_it(store: JobStore) -> None:
    await added(store, "a")
    waiting = [asyncio.create_task(store.wait_for_end("a")) for _ in range(20)]
    await store.start("a", 5)
    await store.append("a", [("token", "x")])
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await store.finish("a", "cancelled", "{}", 7)
    async with asyncio.timeout(1):  # they are told: this is no polling
        await asyncio.gather(*waiting)


async def test_nobody_waits_for_the_end_of_what_has_ended_or_is_unknown(store: JobStore) -> None:
    await added(store, "a")
    await store.finish("a", "cancelled", "{}", 7)
    async with asyncio.timeout(1):
        await store.wait_for_end("a")
        await store.wait_for_end("unknown")


# The queue


async def test_jobs_are_taken_in_their_order_and_by_their_model(store: JobStore) -> None:
    await store.add(record("other", model="painter"))
    await added(store, *"abc")
    claims = [await taken(store) for _ in range(3)]
    assert [(claim.job, claim.model) for claim in claims] == [("a", "poet"), ("b", "poet"), ("c", "poet")]
    assert (await taken(store, "painter")).job == "other"


async def test_who_takes_waits_for_the_next_job(store: JobStore) -> None:
    first, second = (asyncio.create_task(taken(store)) for _ in range(2))
    await asyncio.sleep(0.05)
    assert not first.done()
    await added(store, "a", "b")
    assert {(await first).job, (await second).job} == {"a", "b"}


async def test_a_position_is_the_number_of_jobs_before(store: JobStore) -> None:
    jobs = [await store.add(record(job)) for job in "abcd"]
    assert [await store.position(job) for job in jobs] == [0, 1, 2, 3]
    await taken(store)
    await store.start("a", 5)
    assert [await store.position(job) for job in jobs[1:]] == [1, 2, 3]


async def test_what_is_running_has_no_position(store: JobStore) -> None:
    await added(store, "a")
    await taken(store)
    await store.start("a", 5)
    kept = await store.get("a")
    assert kept is not None
    assert await store.position(kept) is None


async def test_what_is_on_its_way_has_no_position_and_holds_up_nobody(store: JobStore) -> None:
    """A job that went to a broker is queued until a predictor begins with it, but not here."""
    a, b = [await store.add(record(job)) for job in "ab"]
    await store.acknowledge(await taken(store))
    assert (await store.position(a), await store.position(b)) == (None, 0)


async def test_what_was_cancelled_while_it_was_queued_holds_up_nobody(store: JobStore) -> None:
    _, b, c = [await store.add(record(job)) for job in "abc"]
    await store.finish("b", "cancelled", "{}", 7)
    assert (await store.position(b), await store.position(c)) == (None, 1)
    assert [(await taken(store)).job, (await taken(store)).job] == ["a", "c"]


async def test_a_claim_that_is_released_is_for_others(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.1)
    await added(store, "a")
    await store.release(await taken(store))
    claim = await taken(store)
    assert claim.job == "a"
    await store.renew([claim])
    await store.acknowledge(claim)
    await added(store, "b")
    assert (await taken(store)).job == "b"


async def test_jobs_are_open_until_their_end(store: JobStore) -> None:
    await added(store, *"abc")
    await taken(store)
    await store.start("a", 5)
    assert await store.open_jobs() == 3
    for job, left in (("a", 2), ("c", 1), ("c", 1), ("b", 0)):
        await store.finish(job, "failed", "{}", 7)
        assert await store.open_jobs() == left


async def test_open_jobs_are_overdue_after_their_deadline(store: JobStore) -> None:
    now = time.time()
    for job, deadline in (("a", now + 10), ("b", now + 20), ("c", now + 30), ("d", now + 10)):
        await store.add(record(job, deadline=deadline))
    await store.finish("d", "failed", "{}", now)
    await store.start("b", now)
    assert await store.overdue(now + 9) == []
    assert await store.overdue(now + 10) == ["a"]
    assert sorted(await store.overdue(now + 25)) == ["a", "b"]


# The log


async def test_what_was_told_is_told_again_after_any_entry(store: JobStore) -> None:
    await added(store, "a")
    await store.append("a", [("status", "1"), ("token", "2")])
    await store.append("a", [("token", "3")])
    await store.finish("a", "completed", "4", 7)
    entries = await seen(store, "a")
    assert told(entries) == [("status", "1"), ("token", "2"), ("token", "3"), ("result", "4")]
    for index, entry in enumerate(entries):
        assert await seen(store, "a", entry.id) == entries[index + 1 :]


async def test_what_is_told_is_seen_at_once_by_all_who_watch(store: JobStore) -> None:
    await added(store, "a")
    heard: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(10)]

    async def watch(ear: asyncio.Queue[str]) -> None:
        async for entry in store.watch("a"):
            ear.put_nowait(entry.data)

    watching = [asyncio.create_task(watch(ear)) for ear in heard]
    for data in "春天的雨":
        await store.append("a", [("token", data)])
        async with asyncio.timeout(1):  # they are told: this is no polling
            assert [await ear.get() for ear in heard] == [data] * 10
    await store.finish("a", "completed", "end", 7)
    async with asyncio.timeout(1):
        await asyncio.gather(*watching)
    assert [ear.get_nowait() for ear in heard] == ["end"] * 10


async def test_nothing_is_seen_twice_or_left_out_by_those_who_come_and_go(store: JobStore) -> None:
    await added(store, "a")
    numbers = [str(number) for number in range(300)]

    async def tell() -> None:
        for number in numbers:
            await store.append("a", [("token", number)])
        await store.finish("a", "completed", "end", 7)

    async def watch() -> list[str]:
        found: list[str] = []
        after = BEGINNING
        while not found or found[-1] != "end":
            async with aclosing(store.watch("a", after)) as entries:  # type: ignore[type-var]
                async for entry in entries:
                    found.append(entry.data)
                    after = entry.id
                    if len(found) % 7 == 0:
                        break
        return found

    async with asyncio.timeout(LIMIT):
        *found, _ = await asyncio.gather(watch(), watch(), tell())
    assert found == [[*numbers, "end"]] * 2


async def test_a_watch_that_begins_before_the_job_was_told_of_anything_ends_with_its_end(store: JobStore) -> None:
    await added(store, "a")
    watching = asyncio.create_task(seen(store, "a"))
    await asyncio.sleep(0.05)
    await store.finish("a", "cancelled", "{}", 7)
    assert told(await watching) == [("error", "{}")]


async def test_nothing_is_told_of_a_job_that_is_unknown(store: JobStore) -> None:
    await store.append("a", [("token", "x")])
    await store.append_progress("a", 5, lambda _: ("token", "x"))
    assert await seen(store, "a") == []
    await added(store, "a")
    await store.append_progress("a", 1, lambda before: ("token", str(before)))
    await store.finish("a", "completed", "end", 7)
    assert told(await seen(store, "a")) == [("token", "0"), ("result", "end")]


async def test_an_entry_that_does_not_exist_is_a_place_all_the_same(store: JobStore) -> None:
    await added(store, "a")
    await store.append("a", [("token", "1")])
    await store.finish("a", "completed", "end", 7)
    assert await seen(store, "a", "99999999999999-7") == []
    assert len(await seen(store, "a", "0-0")) == 2


async def test_progress_only_goes_forward(store: JobStore) -> None:
    await added(store, "a")
    text = "0123456789"
    for length in (3, 1, 3, 7, 2, 10, 10):
        await store.append_progress("a", length, lambda before, length=length: ("token", text[before:length]))  # type: ignore[misc]
    await store.finish("a", "completed", "end", 7)
    assert told(await seen(store, "a")) == [("token", "012"), ("token", "3456"), ("token", "789"), ("result", "end")]


async def test_progress_that_comes_at_once_is_told_without_gaps(store: JobStore) -> None:
    await added(store, "a")
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 40)))
    order = [(7 * number) % 40 + 1 for number in range(40)]

    def piece(length: int) -> Callable[[int], tuple[str, str]]:
        return lambda before: ("token", text[before:length])

    await asyncio.gather(*(store.append_progress("a", length, piece(length)) for length in order))
    await store.finish("a", "completed", "end", 7)
    assert "".join(entry.data for entry in await seen(store, "a")) == text + "end"


async def test_after_a_restart_progress_begins_again(store: JobStore) -> None:
    await added(store, "a")
    await store.start("a", 5)
    await store.append_progress("a", 3, lambda before: ("token", str(before)))
    await store.reset("a")
    await store.append_progress("a", 2, lambda before: ("token", str(before)))
    await store.finish("a", "completed", "end", 7)
    assert told(await seen(store, "a")) == [("token", "0"), ("token", "0"), ("result", "end")]


async def test_a_log_drops_its_oldest_entries(make: Make) -> None:
    store = await make(log_entries=20)
    await added(store, "a")
    numbers = [str(number) for number in range(500)]
    await store.append("a", [("token", number) for number in numbers])
    for number in ("500", "501"):
        await store.append_progress("a", int(number), lambda _, number=number: ("token", number))  # type: ignore[misc]
    await store.finish("a", "completed", "end", 7)
    found = [entry.data for entry in await seen(store, "a")]
    assert found == [*numbers, "500", "501", "end"][-len(found) :]
    assert 20 <= len(found) <= 221  # Redis drops whole blocks of a hundred


async def test_an_ended_job_is_forgotten_after_a_time(make: Make) -> None:
    store = await make(keep_seconds=0.4)
    await added(store, "a", "b")
    await store.append("a", [("token", "x")])
    await store.finish("a", "completed", "end", time.time())

    async def forgotten() -> bool:
        await store.overdue(time.time())  # the reaper asks every second
        return await store.get("a") is None

    assert not await forgotten()
    await until(forgotten)
    assert await seen(store, "a") == []
    assert await store.get("b") is not None
    assert await store.open_jobs() == 1
    again = record(digest="again")
    assert await store.add(again) == again


# In memory


async def test_ended_jobs_are_forgotten_earlier_where_memory_is_full() -> None:
    store = MemoryStore(KEEP, 2_500, 1_000)
    await store.add(record("open", request="x" * 5_000))
    await store.append("open", [("token", "x" * 5_000)])
    for job in "abc":
        await added(store, job)
        await store.append(job, [("token", "x" * 500)])
        await store.finish(job, "completed", "x" * 500, 7)
    assert [job for job in ("open", *"abc") if await store.get(job)] == ["open", "b", "c"]


async def test_orders_count_as_memory_too() -> None:
    store = MemoryStore(KEEP, 2_500, 1_000)
    for job in "abc":
        await store.add(record(job, request="x" * 1_000))
        await store.finish(job, "failed", "{}", 7)
    assert [job for job in "abc" if await store.get(job)] == ["b", "c"]


async def test_the_newest_end_is_kept_however_large_it_is() -> None:
    """Somebody is waiting for it."""
    store = MemoryStore(KEEP, 100, 1_000)
    for job in "ab":
        await added(store, job)
        waiting = asyncio.create_task(store.wait_for_end(job))
        await store.finish(job, "completed", "x" * 1_000, 7)
        await waiting
        assert await store.get(job) is not None
    assert await store.get("a") is None


# In Redis


async def test_replicas_see_the_same_jobs(shared: Shared) -> None:
    one, other = await shared(), await shared()
    assert one.shared
    came = record()
    await one.add(came)
    assert await other.get("a") == came
    assert await other.add(record(digest="another")) == came
    assert await other.open_jobs() == 1
    watching = asyncio.create_task(seen(one, "a"))
    waiting = asyncio.create_task(one.wait_for_end("a"))
    claim = await taken(other)
    assert claim.job == "a"
    await other.start("a", 5)
    await other.append("a", [("token", "x")])
    await other.append_progress("a", 3, lambda _: ("token", "y"))
    assert await other.finish("a", "completed", "end", 7)
    async with asyncio.timeout(1):
        assert told(await watching) == [("token", "x"), ("token", "y"), ("result", "end")]
        await waiting
    assert await one.finish("a", "failed", "late", 8) is False


async def test_no_job_is_taken_by_two_replicas(shared: Shared) -> None:
    stores = [await shared() for _ in range(3)]
    taking = [asyncio.create_task(taken(store)) for store in stores * 10]
    await asyncio.gather(*(stores[0].add(record(str(number))) for number in range(30)))
    claims = await asyncio.gather(*taking)
    assert sorted(int(claim.job) for claim in claims) == list(range(30))


async def test_a_claim_that_is_not_kept_up_is_taken_over(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    one, other = await shared(), await shared()
    await added(one, "a", "b")
    kept, lost = await taken(one), await taken(one)
    taking = asyncio.create_task(taken(other))
    begun = time.monotonic()
    while not taking.done():
        await one.renew([kept])
        await asyncio.sleep(0.05)
    assert (await taking) == lost
    assert time.monotonic() - begun >= 0.4
    await other.acknowledge(lost)
    taking = asyncio.create_task(taken(other))
    await asyncio.sleep(0.2)
    assert not taking.done()
    assert await taking == kept  # which is not kept up any more


async def test_an_orphan_is_found_behind_many_claims_that_are_kept_up(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    one, other = await shared(), await shared()
    await added(one, *map(str, range(40)), "orphan")
    *kept, orphan = [await taken(one) for _ in range(41)]
    taking = asyncio.create_task(taken(other))
    async with asyncio.timeout(LIMIT):
        while not taking.done():
            await one.renew(kept)
            await asyncio.sleep(0.05)
    assert await taking == orphan


async def test_replicas_that_come_and_go_leave_nothing_behind(shared: Shared, redis_client: redis.Redis) -> None:
    for number in range(5):
        store = await shared()
        await added(store, str(number))
        await store.acknowledge(await taken(store))
        await store.finish(str(number), "failed", "{}", 7)
        await store.close()
    [group] = redis_client.xinfo_groups("shangcai:queue:poet")
    assert (group["consumers"], group["pending"]) == (1, 0)
    assert redis_client.xlen("shangcai:queue:poet") == 0


async def test_everything_that_is_kept_of_a_job_expires(shared: Shared, redis_client: redis.Redis) -> None:
    store = await shared(keep_seconds=100)

    def left() -> dict[str, int]:
        keys = [*redis_client.scan_iter("shangcai:job:*"), *redis_client.scan_iter("shangcai:log:*")]
        return {key.removeprefix("shangcai:"): int(redis_client.ttl(key)) for key in keys}

    await store.add(record(deadline=time.time() + 1_000))
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


async def test_a_job_that_is_forgotten_before_its_end_is_not_open_for_ever(shared: Shared) -> None:
    """While every replica was at zero."""
    store = await shared(keep_seconds=1)
    await store.add(record(deadline=time.time() - 10))
    assert await store.get("a") is None
    assert await store.overdue(time.time()) == ["a"]
    assert await store.finish("a", "failed", "{}", time.time()) is False
    assert await store.overdue(time.time()) == []
    assert await store.open_jobs() == 0


async def test_messages_that_are_lost_only_delay(
    shared: Shared, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "POLL_SECONDS", 0.3)
    store = await shared()
    await added(store, "a", "b")
    watching = asyncio.create_task(seen(store, "a"))
    waiting = asyncio.create_task(store.wait_for_end("a"))
    await until(lambda: _listens(redis_client))
    finishing = asyncio.create_task(store.finish("a", "completed", "end", 7))
    while not finishing.done():  # so that nobody hears of it
        redis_client.client_kill_filter(_type="pubsub")
        await asyncio.sleep(0)
    async with asyncio.timeout(2):
        assert told(await watching) == [("result", "end")]
        await waiting
    monkeypatch.setattr(redis_store, "POLL_SECONDS", 60)
    await until(lambda: _listens(redis_client))  # again
    waiting = asyncio.create_task(store.wait_for_end("b"))
    await asyncio.sleep(0.05)
    await store.finish("b", "completed", "end", 7)
    async with asyncio.timeout(1):
        await waiting


async def _listens(client: redis.Redis) -> bool:
    return bool(client.client_list(_type="pubsub"))


async def test_a_store_that_is_full_is_an_outage_that_passes(shared: Shared, redis_client: redis.Redis) -> None:
    store = await shared(patience_seconds=1)
    await added(store, "a")
    redis_client.config_set("maxmemory", "1")
    try:
        for refused in (store.add(record("b")), store.finish("a", "failed", "{}", 7), store.claim("painter")):
            with pytest.raises(ProblemError) as problem:
                await refused
            assert problem.value.kind.slug == "unavailable"
    finally:
        redis_client.config_set("maxmemory", "0")
    assert await store.add(record("b")) == await store.get("b")
    assert (await taken(store)).job == "a"


async def test_nobody_there_is_an_outage(closed_port: int) -> None:
    store = RedisStore(f"redis://127.0.0.1:{closed_port}", KEEP, 1_000, patience_seconds=1)
    await store.open()  # what needs no store is served without it
    with pytest.raises(ProblemError) as problem:
        await store.get("a")
    assert (problem.value.kind.slug, problem.value.problem.retry_after) == ("unavailable", 5)
    await store.close()


async def test_a_queue_that_is_gone_is_made_again(shared: Shared, redis_client: redis.Redis) -> None:
    """Redis came back empty."""
    store = await shared()
    await added(store, "a")
    redis_client.flushall()
    await added(store, "b")
    assert (await taken(store)).job == "b"
    taking = asyncio.create_task(taken(store))
    await asyncio.sleep(0.05)
    assert not taking.done()
    redis_client.flushall()
    await added(store, "c")
    assert (await taking).job == "c"


async def test_an_outage_of_redis_loses_nothing(
    shared: Shared, start_redis: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    options = {"appendonly": "yes", "appendfsync": "always"}
    process = start_redis(closed_port, tmp_path, **options)
    store = await shared(f"redis://127.0.0.1:{closed_port}/0", patience_seconds=LIMIT)
    await added(store, "a", "b")
    claim = await taken(store)
    await store.append("a", [("token", "before")])
    watching, waiting = asyncio.create_task(seen(store, "a")), asyncio.create_task(store.wait_for_end("a"))
    taking = asyncio.create_task(store.claim("painter"))
    await asyncio.sleep(0.05)
    process.kill()
    process.wait()
    finishing = asyncio.create_task(store.finish("a", "completed", "end", 7))
    adding = asyncio.create_task(store.add(record("c", model="painter")))
    await asyncio.sleep(0.3)
    assert not finishing.done()
    await asyncio.to_thread(start_redis, closed_port, tmp_path, **options)
    async with asyncio.timeout(LIMIT):
        assert await finishing
        assert told(await watching) == [("token", "before"), ("result", "end")]
        await waiting
        await adding
        assert (await taking).job == "c"
    await store.acknowledge(claim)
    assert (await taken(store)).job == "b"


async def test_patience_with_an_outage_ends(
    shared: Shared, start_redis: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    process = start_redis(closed_port, tmp_path)
    store = await shared(f"redis://127.0.0.1:{closed_port}/0", patience_seconds=1)
    await added(store, "a")
    process.kill()
    process.wait()

    async def watch() -> None:
        await seen(store, "a")

    waits: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("a"),
        lambda: store.finish("a", "failed", "{}", 7),
        lambda: store.claim("poet"),
        lambda: store.wait_for_end("a"),
        watch,
    ]
    begun = time.monotonic()
    for problem in await asyncio.gather(*(wait() for wait in waits), return_exceptions=True):
        assert isinstance(problem, ProblemError)
        assert (problem.kind.slug, problem.problem.retry_after) == ("unavailable", 5)
    assert time.monotonic() - begun < LIMIT
    with suppress(ProblemError):
        await store.close()
