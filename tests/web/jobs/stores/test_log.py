"""What both stores promise of a job's log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from tests.support.jobs import (
    LIMIT,
    MakeStore,
    added,
    entries_of,
    pairs,
)
from web.jobs.record import BEGINNING
from web.jobs.store import JobStore


async def test_a_log_can_be_read_again_after_any_entry(store: JobStore) -> None:
    await added(store, "a")
    await store.append("a", [("status", "1"), ("token", "2")])
    await store.append("a", [("token", "3")])
    await store.finish("a", "completed", "4", 7)
    entries = await entries_of(store, "a")
    assert pairs(entries) == [("status", "1"), ("token", "2"), ("token", "3"), ("result", "4")]
    for index, entry in enumerate(entries):
        assert await entries_of(store, "a", entry.id) == entries[index + 1 :]


@pytest.mark.usefixtures("only_messages")
async def test_all_who_watch_see_an_entry_at_once(store: JobStore) -> None:
    await added(store, "a")
    queues: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(10)]

    async def watch(seen: asyncio.Queue[str]) -> None:
        async for entry in store.watch("a"):
            seen.put_nowait(entry.data)

    watching = [asyncio.create_task(watch(ear)) for ear in queues]
    for data in "春天的雨":
        await store.append("a", [("token", data)])
        async with asyncio.timeout(LIMIT):
            assert [await seen.get() for seen in queues] == [data] * 10
    await store.finish("a", "completed", "end", 7)
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*watching)
    assert [seen.get_nowait() for seen in queues] == ["end"] * 10


async def test_those_who_resume_watching_miss_nothing_and_see_nothing_twice(store: JobStore) -> None:
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


async def test_watching_an_empty_log_ends_with_the_job(store: JobStore) -> None:
    await added(store, "a")
    watching = asyncio.create_task(entries_of(store, "a"))
    await asyncio.sleep(0.05)
    await store.finish("a", "cancelled", "{}", 7)
    assert pairs(await watching) == [("error", "{}")]


async def test_nothing_is_appended_to_an_unknown_job(store: JobStore) -> None:
    await store.append("a", [("token", "x")])
    await store.append_progress("a", 5, lambda _: ("token", "x"))
    assert await entries_of(store, "a") == []
    await added(store, "a")
    await store.append_progress("a", 1, lambda before: ("token", str(before)))
    await store.finish("a", "completed", "end", 7)
    assert pairs(await entries_of(store, "a")) == [("token", "0"), ("result", "end")]


async def test_watching_after_an_entry_that_does_not_exist(store: JobStore) -> None:
    await added(store, "a")
    await store.append("a", [("token", "1")])
    await store.finish("a", "completed", "end", 7)
    assert await entries_of(store, "a", "99999999999999-7") == []
    assert len(await entries_of(store, "a", "0-0")) == 2


async def test_progress_only_goes_forward(store: JobStore) -> None:
    await added(store, "a")
    text = "0123456789"
    for length in (3, 1, 3, 7, 2, 10, 10):
        await store.append_progress("a", length, lambda before, length=length: ("token", text[before:length]))  # type: ignore[misc]
    await store.finish("a", "completed", "end", 7)
    assert pairs(await entries_of(store, "a")) == [
        ("token", "012"),
        ("token", "3456"),
        ("token", "789"),
        ("result", "end"),
    ]


async def test_concurrent_progress_is_appended_without_gaps(store: JobStore) -> None:
    await added(store, "a")
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 40)))
    order = [(7 * number) % 40 + 1 for number in range(40)]

    def piece(length: int) -> Callable[[int], tuple[str, str]]:
        return lambda before: ("token", text[before:length])

    await asyncio.gather(*(store.append_progress("a", length, piece(length)) for length in order))
    await store.finish("a", "completed", "end", 7)
    assert "".join(entry.data for entry in await entries_of(store, "a")) == text + "end"


async def test_after_a_reset_progress_begins_again(store: JobStore) -> None:
    await added(store, "a")
    await store.start("a", 5)
    await store.append_progress("a", 3, lambda before: ("token", str(before)))
    await store.reset("a")
    await store.append_progress("a", 2, lambda before: ("token", str(before)))
    await store.finish("a", "completed", "end", 7)
    assert pairs(await entries_of(store, "a")) == [("token", "0"), ("token", "0"), ("result", "end")]


async def test_a_log_drops_its_oldest_entries(make: MakeStore) -> None:
    store = await make(log_entries=20)
    await added(store, "a")
    numbers = [str(number) for number in range(500)]
    await store.append("a", [("token", number) for number in numbers])
    for number in ("500", "501"):
        await store.append_progress("a", int(number), lambda _, number=number: ("token", number))  # type: ignore[misc]
    await store.finish("a", "completed", "end", 7)
    found = [entry.data for entry in await entries_of(store, "a")]
    assert found == [*numbers, "500", "501", "end"][-len(found) :]
    assert 20 <= len(found) <= 221  # Redis drops whole blocks of a hundred
