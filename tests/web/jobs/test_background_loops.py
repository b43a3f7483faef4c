"""No loop in the background ends silently: what it cannot foresee is logged, and it goes on or ends the process."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from contract import ProblemError, problems
from tests.support.jobs import LIMIT, FailingStore, ScriptedBackend, complete, ended, hang, submitted
from tests.support.waiting import eventually
from web.jobs import background_loops, worker
from web.jobs.background_loops import BackgroundLoops
from web.jobs.service import JobService
from web.jobs.stores import redis_signals
from web.jobs.stores.redis_store import RedisStore
from web.readiness.broadcast import ReadinessBroadcast
from web.readiness.model_readiness import Readiness
from web.readiness.states_file import StatesFile
from web.settings import Settings

FOR_EVER = 1_000_000
LOOPS = {
    "claim": "the claiming of jobs for poet",
    "renew": "the renewal of claims",
    "overdue": "the search for late jobs",
    "broadcast": "the broadcast of the models' readiness",
}


class ClosedTransports(FailingStore):
    """Fails as uvloop does over a transport that Redis has closed, which redis-py does not foresee."""

    shared = True

    def __init__(self, **left: int) -> None:
        super().__init__(lambda: RuntimeError("unable to perform operation on <TCPTransport>"), **left)


class Process:
    """A replica with all its loops, which notes when it would end."""

    def __init__(self, store: ClosedTransports) -> None:
        self.ended = asyncio.Event()
        self.loops = BackgroundLoops(self.ended.set)
        self.received: list[str] = []
        settings = Settings(models={"poet": "http://poet.test"})
        self.jobs = JobService(settings, store, ScriptedBackend(complete, hang), self.loops)
        self.readiness = Readiness("poet", "text", 60, 600, StatesFile(None))
        self.broadcast = ReadinessBroadcast(store, {"poet": self.readiness}, self.loops)
        store.subscribe(self.received.append)

    def change(self) -> None:
        """Have something broadcast."""
        self.readiness.answered()
        self.readiness.lost()

    async def __aenter__(self) -> Process:
        await self.jobs.open()
        self.broadcast.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broadcast.close()
        await self.jobs.close(0)


@pytest.fixture(autouse=True)
def quick(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(background_loops, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(background_loops, "MOST_PAUSE_SECONDS", 0.002)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, asyncio.CancelledError])
@pytest.mark.parametrize("name", LOOPS)
async def test_a_loop_goes_on_after_an_unforeseen_failure(
    name: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    store = ClosedTransports(**{name: 3})
    store.error = error
    async with Process(store) as process:
        assert (await ended(process.jobs, await submitted(process.jobs))).state == "completed"
        assert (await ended(process.jobs, await submitted(process.jobs, seconds=0.1))).state == "failed"

        def heard_again() -> bool:
            process.change()
            return bool(process.received) and not store.left[name]

        await eventually(heard_again)
        assert not process.ended.is_set()
    failures = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in failures] == [f"{LOOPS[name]} has failed and is tried again"]  # once


@pytest.mark.parametrize("name", LOOPS)
async def test_a_loop_that_fails_for_ever_ends_the_process_which_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = ClosedTransports(**{name: FOR_EVER})
    async with Process(store) as process:
        await submitted(process.jobs)
        await submitted(process.jobs)  # which hangs, so that claims are renewed

        def has_ended() -> bool:
            process.change()
            return process.ended.is_set()

        await eventually(has_ended)
        assert [loop.name for loop in process.loops.stalled] == [LOOPS[name]]
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert line == f"{LOOPS[name]} has failed {background_loops.MOST_FAILURES} times in a row: the process ends"


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
async def test_changes_are_heard_of_again_after_an_unforeseen_failure(
    redis_url: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loops = BackgroundLoops()
    store = RedisStore(redis_url, 60, 1_000, 5, background=loops)
    subscribe, left = store._redis.pubsub, [error] * 3

    def pubsub() -> Any:
        if left:
            raise left.pop()
        return subscribe()

    monkeypatch.setattr(store._redis, "pubsub", pubsub)
    received: list[str] = []
    store.subscribe(received.append)
    await store.open()

    async def heard() -> bool:
        await store.broadcast("news")
        return bool(received)

    await eventually(heard)
    await store.close()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "the subscription to changes of jobs has failed and is tried again"
    ]


async def test_a_subscription_that_fails_for_ever_ends_the_process(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()
    store = RedisStore(redis_url, 60, 1_000, 5, background=BackgroundLoops(ended.set))
    monkeypatch.setattr(store._redis, "pubsub", lambda: int("a mistake"))
    await store.open()
    await asyncio.wait_for(ended.wait(), LIMIT)
    await store.close()


async def test_a_silent_subscription_goes_round(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_signals, "IDLE_SECONDS", 0.01)
    loops = BackgroundLoops()
    store = RedisStore(redis_url, 60, 1_000, 5, background=loops)
    await store.open()
    [loop] = loops
    begun = asyncio.get_running_loop().time()
    await eventually(lambda: loop.seconds < (asyncio.get_running_loop().time() - begun) / 2)
    await store.close()


async def test_an_outage_of_the_store_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_loops, "RETRY_SECONDS", 0.001)
    store = ClosedTransports(claim=FOR_EVER, overdue=FOR_EVER)
    store.error = lambda: ProblemError(problems.UNAVAILABLE, "The store cannot be reached.")
    async with Process(store) as process:
        outages = FOR_EVER - 3 * background_loops.MOST_FAILURES
        await eventually(lambda: store.left["claim"] < outages and store.left["overdue"] < outages)
        assert process.loops.stalled == process.loops.failing == []
        assert not process.ended.is_set()


async def test_a_loop_goes_round_also_where_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("web.jobs.worker", "web.readiness.broadcast"):
        monkeypatch.setattr(f"{module}.IDLE_SECONDS", 0.01)
    monkeypatch.setattr("web.readiness.broadcast.REPEAT_SECONDS", 0.01)
    monkeypatch.setattr("web.jobs.stores.memory_store.CLAIM_SECONDS", 0.01)
    async with Process(ClosedTransports()) as process:
        begun = asyncio.get_running_loop().time()
        loops = list(process.loops)

        def gone_round() -> bool:
            passed = asyncio.get_running_loop().time() - begun
            return all(loop.seconds < passed / 2 for loop in loops)

        await eventually(gone_round)
