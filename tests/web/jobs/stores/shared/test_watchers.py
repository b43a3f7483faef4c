"""Many watch one job: its log is read once for all of them in a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import redis

from contract import ProblemError
from tests.support.jobs import LIMIT, SharedStore, added, entries_of, pairs
from tests.support.waiting import eventually
from web.jobs.record import LogEntry
from web.jobs.stores import redis_connection, redis_logs
from web.jobs.stores.redis_store import RedisStore

WATCHERS = 240


async def watch_from_now_on(store: RedisStore, watchers: int) -> list[asyncio.Task[list[LogEntry]]]:
    """Watchers that have seen the first entry of the job's log."""
    seen = 0

    async def watch() -> list[LogEntry]:
        nonlocal seen
        entries: list[LogEntry] = []
        async for entry in store.watch("a"):
            seen += not entries
            entries.append(entry)
        return entries

    await store.append("a", [("token", "first")])
    watching = [asyncio.create_task(watch()) for _ in range(watchers)]
    await eventually(lambda: seen == watchers)
    return watching


async def test_hundreds_watch_one_job_over_few_connections(
    shared: SharedStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "MOST_CONNECTIONS", 4)
    store = await shared()
    await added(store, "a")
    watching = await watch_from_now_on(store, WATCHERS)
    waiting = [asyncio.create_task(store.wait_for_end("a")) for _ in range(WATCHERS)]
    for number in range(20):
        await store.append("a", [("token", str(number))])
    await store.finish("a", "completed", "end", 7)
    async with asyncio.timeout(LIMIT):
        logs = await asyncio.gather(*watching)
        await asyncio.gather(*waiting)
    assert {tuple(entry.data for entry in log) for log in logs} == {("first", *map(str, range(20)), "end")}
    assert len(redis_client.client_list()) <= 5  # one is this client's own


async def test_a_log_is_read_as_often_for_many_watchers_as_for_one(
    shared: SharedStore, redis_client: redis.Redis
) -> None:
    store = await shared()
    await added(store, "a")
    watching = await watch_from_now_on(store, WATCHERS)
    redis_client.config_resetstat()
    for number in range(10):
        await store.append("a", [("token", str(number))])
    await store.finish("a", "completed", "end", 7)
    await asyncio.gather(*watching)
    assert redis_client.info("commandstats")["cmdstat_xrange"]["calls"] <= 13


async def test_a_slow_watcher_reads_again_what_is_no_longer_kept(
    shared: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_logs, "PAGE", 8)
    monkeypatch.setattr(redis_logs, "CATCH_UP_PAGE", 4)
    store = await shared()
    await added(store, "a")
    await store.append("a", [("token", "first")])
    slow: AsyncIterator[LogEntry]
    async with aclosing(store.watch("a")) as slow:  # type: ignore[type-var]
        found = [await anext(slow)]
        watching = asyncio.create_task(entries_of(store, "a"))
        for number in range(50):
            await store.append("a", [("token", str(number))])
        await store.finish("a", "completed", "end", 7)
        quick = await watching
        [reader] = store._logs._readers.values()
        assert len(reader.entries) == 8
        async with asyncio.timeout(LIMIT):
            found.extend([entry async for entry in slow])
    assert found == quick
    assert [entry.data for entry in found] == ["first", *map(str, range(50)), "end"]
    assert store._logs._readers == {}


async def test_large_entries_are_not_kept_for_watchers(shared: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_logs, "WINDOW_BYTES", 10_000)
    store = await shared()
    await added(store, "a")
    async with aclosing(store.watch("a")) as slow:  # type: ignore[type-var]
        await store.append("a", [("preview", "x" * 4_000)])
        found = [await anext(slow)]
        for _ in range(5):
            await store.append("a", [("preview", "x" * 4_000)])
        await store.finish("a", "completed", "y" * 20_000, 7)
        [reader] = store._logs._readers.values()
        await eventually(reader.task.done)
        assert sum(len(entry.data) for entry in reader.entries) == 20_000  # the last one, whatever its size
        found.extend([entry async for entry in slow])
    assert [len(entry.data) for entry in found] == [4_000] * 6 + [20_000]


async def test_a_watcher_that_claims_to_know_the_future_does_not_keep_others_from_seeing_it(
    shared: SharedStore,
) -> None:
    store = await shared()
    await added(store, "a")
    await store.append("a", [("token", "1")])
    future = asyncio.create_task(entries_of(store, "a", "99999999999999-7"))
    await eventually(lambda: store._logs._readers)
    watching = asyncio.create_task(entries_of(store, "a"))
    await store.append("a", [("token", "2")])
    await store.finish("a", "completed", "end", 7)
    assert pairs(await watching) == [("token", "1"), ("token", "2"), ("result", "end")]
    assert pairs(await future)[-1] == ("result", "end")


async def test_a_pool_without_a_free_connection_is_waited_for_and_then_an_outage(
    shared: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "MOST_CONNECTIONS", 2)
    store = await shared(patience_seconds=0.2)
    claiming = asyncio.create_task(store.claim("poet"))  # holds one; the other one is the subscription's
    refused: list[str] = []

    async def refuses() -> bool:
        try:
            await store.get("a")
        except ProblemError as error:
            refused.append(error.kind.slug)
        return bool(refused)

    await eventually(refuses)
    assert refused == ["unavailable"]
    claiming.cancel()
    await asyncio.wait({claiming})
    assert await store.get("a") is None
