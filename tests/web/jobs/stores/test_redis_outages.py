"""Redis loses messages, is full, restarts, or is not there."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from contract import ProblemError
from tests.support.jobs import (
    KEEP_SECONDS,
    LIMIT,
    SharedStore,
    added,
    claimed,
    entries_of,
    new_record,
    pairs,
)
from tests.support.waiting import eventually
from web.jobs import background_loops
from web.jobs.background_loops import BackgroundLoops
from web.jobs.stores import redis_logs, redis_store
from web.jobs.stores.redis_connection import ANSWER_SECONDS, check_schema
from web.jobs.stores.redis_store import RedisStore


async def test_a_lost_message_only_delays(
    shared: SharedStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (redis_store, redis_logs):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.3)
    store = await shared()
    await added(store, "a", "b")
    watching = asyncio.create_task(entries_of(store, "a"))
    waiting = asyncio.create_task(store.wait_for_end("a"))
    await eventually(lambda: _listens(redis_client))
    finishing = asyncio.create_task(store.finish("a", "completed", "end", 7))
    while not finishing.done():  # so that the message is lost
        redis_client.client_kill_filter(_type="pubsub")
        await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT):
        assert pairs(await watching) == [("result", "end")]
        await waiting
    monkeypatch.setattr(redis_store, "POLL_SECONDS", 100 * LIMIT)
    await eventually(lambda: _listens(redis_client))  # again
    waiting = asyncio.create_task(store.wait_for_end("b"))
    await asyncio.sleep(0.05)
    await store.finish("b", "completed", "end", 7)
    async with asyncio.timeout(LIMIT):
        await waiting


async def _listens(client: redis.Redis) -> bool:
    return bool(client.client_list(_type="pubsub"))


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_server_that_is_not_there_is_an_outage(
    closed_port: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_loops, "RETRY_SECONDS", 0.01)
    url, loops = f"{scheme}://127.0.0.1:{closed_port}", BackgroundLoops()
    await check_schema(url)  # so does the start
    store = RedisStore(url, KEEP_SECONDS, 1_000, patience_seconds=1, background=loops)
    await store.open()  # what needs no store is served without it
    with pytest.raises(ProblemError) as problem:
        await store.get("a")
    assert (problem.value.kind.slug, problem.value.problem.retry_after) == ("unavailable", 5)
    [loop] = loops
    begun = asyncio.get_running_loop().time()
    await eventually(lambda: loop.seconds < asyncio.get_running_loop().time() - begun)
    assert loop.failures == 0
    await store.close()


async def test_a_lost_queue_is_created_again(shared: SharedStore, redis_client: redis.Redis) -> None:
    """Redis came back empty."""
    store = await shared()
    await added(store, "a")
    redis_client.flushall()
    await added(store, "b")
    assert (await claimed(store)).job == "b"
    claiming = asyncio.create_task(claimed(store))
    await asyncio.sleep(0.05)
    assert not claiming.done()
    redis_client.flushall()
    await added(store, "c")
    assert (await claiming).job == "c"


async def test_an_outage_of_redis_loses_nothing(
    shared: SharedStore, start_redis: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    options = {"appendonly": "yes", "appendfsync": "always"}
    process = start_redis(closed_port, tmp_path, **options)
    store = await shared(f"redis://127.0.0.1:{closed_port}/0", patience_seconds=LIMIT)
    await added(store, "a", "b")
    claim = await claimed(store)
    await store.append("a", [("token", "before")])
    watching, waiting = asyncio.create_task(entries_of(store, "a")), asyncio.create_task(store.wait_for_end("a"))
    claiming = asyncio.create_task(claimed(store, "painter"))
    await asyncio.sleep(0.05)
    process.kill()
    process.wait()
    finishing = asyncio.create_task(store.finish("a", "completed", "end", 7))
    adding = asyncio.create_task(store.add(new_record("c", model="painter")))
    await asyncio.sleep(0.3)
    assert not finishing.done()
    await asyncio.to_thread(start_redis, closed_port, tmp_path, **options)
    async with asyncio.timeout(LIMIT):
        assert await finishing
        assert pairs(await watching) == [("token", "before"), ("result", "end")]
        await waiting
        await adding
        assert (await claiming).job == "c"
    await store.acknowledge(claim)
    assert (await claimed(store)).job == "b"


async def test_patience_with_an_outage_ends(
    shared: SharedStore, start_redis: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    process = start_redis(closed_port, tmp_path)
    store = await shared(f"redis://127.0.0.1:{closed_port}/0", patience_seconds=1)
    await added(store, "a")
    process.kill()
    process.wait()

    async def watch() -> None:
        await entries_of(store, "a")

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


async def test_patience_with_a_silent_server_ends(
    shared: SharedStore, start_redis: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    """It is stopped and not dead: it takes connections, and each attempt waits for its answer."""
    process = start_redis(closed_port, tmp_path)
    store = await shared(f"redis://127.0.0.1:{closed_port}/0", patience_seconds=1)
    await added(store, "a")
    claiming = asyncio.create_task(store.claim("painter"))
    waits: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("a"),
        lambda: store.add(new_record("b")),
        lambda: store.finish("a", "failed", "{}", 7),
        lambda: store.jobs_of("default", 5),
        lambda: store.wait_for_end("a"),
        lambda: entries_of(store, "a"),
    ]
    process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        for problem in await asyncio.gather(*(wait() for wait in waits), return_exceptions=True):
            assert isinstance(problem, ProblemError)
            assert (problem.kind.slug, problem.problem.retry_after) == ("unavailable", 5)
        assert time.monotonic() - begun < ANSWER_SECONDS  # that is one attempt
        with pytest.raises(ProblemError):
            await claiming
    finally:
        process.send_signal(signal.SIGCONT)
    await added(store, "c")
    assert [(await store.get(job)) is not None for job in ("a", "c")] == [True, True]
