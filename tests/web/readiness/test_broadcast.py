"""Replicas share what they observe of a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest
from starlette.types import ASGIApp

from contract import ModelStatus
from tests.support.waiting import eventually
from tests.support.waking import (
    LIMIT,
    LIVE,
    REQUEST,
    Front,
    Model,
    break_connection,
    status,
    until_status,
)
from web.jobs.stores.memory_store import MemoryStore
from web.readiness import broadcast
from web.readiness.broadcast import ReadinessBroadcast
from web.readiness.model_readiness import Readiness
from web.readiness.states_file import StatesFile

App = Callable[..., ASGIApp]
Serve = Callable[[ASGIApp], Awaitable[str]]


async def test_what_one_replica_observes_all_know(
    app: App, front: Front, serve: Serve, model: Model, redis_url: str
) -> None:
    one = await front(store_url=redis_url)
    url = await serve(app(store_url=redis_url))
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as other:
        async with asyncio.timeout(LIMIT):  # the other does not receive anything before it listens
            while (await status(other))["state"] != "waking":
                await one.post("/warm")
                await break_connection(one, model)
                await one.post("/warm")
                await asyncio.sleep(0.05)
        keyed = {**LIVE, "Idempotency-Key": "k"}
        async with other.stream("POST", "/generate", json=REQUEST, headers=keyed) as answer:
            lines = answer.aiter_lines()
            await seen(lines, '"state":"waking"')
            model.phase = "warming up"
            assert (await until_status(other, phase="warming up"))["seconds"] >= 0.2
            model.awake.set()
            assert (await until_status(other, state="ready"))["expected_seconds"] >= 0.2
            assert (await until_status(one, state="ready"))["expected_seconds"] >= 0.2
            await seen(lines, "event: result")


async def seen(lines: AsyncIterator[str], part: str) -> None:
    async with asyncio.timeout(LIMIT):
        async for line in lines:
            if part in line:
                return
    raise AssertionError(part)


async def test_a_replica_ignores_its_own_broadcasts() -> None:
    store, readiness = MemoryStore(60, 1_000_000, 1_000), Readiness("poet", "text", 60, 600, StatesFile(None))
    store.shared = True
    replicas = ReadinessBroadcast(store, {"poet": readiness})
    replicas.open()
    received: list[str] = []
    store.subscribe(received.append)
    readiness.wakes(time.monotonic(), seconds=4)
    readiness.answered()
    readiness.wakes(time.monotonic(), seconds=10)
    await eventually(lambda: len(received) >= 3)
    assert readiness.status.state == "waking"
    assert readiness.expected_seconds == 4  # what it received of the first wake-up has not ended the second
    lost = ModelStatus(name="poet", kind="text", state="unknown")
    await store.broadcast("somebody-else " + lost.model_dump_json())
    assert readiness.waking is None
    await store.broadcast("somebody-else {")
    await replicas.close()


def test_a_model_that_is_awake_here_is_not_waking_for_others() -> None:
    sent: list[ModelStatus] = []
    here, there = [Readiness("poet", "text", 60, 600, StatesFile(None)) for _ in range(2)]
    here.answered()
    here.subscribe(lambda status, _origin: sent.append(status))
    there.wakes(time.monotonic())
    here.receive(there.status)
    assert (here.state, [status.state for status in sent]) == ("ready", ["ready"])
    there.receive(sent[0])
    assert there.state == "ready"
    there.lost()
    here.receive(there.status)
    assert (here.state, len(sent)) == ("ready", 1)


def replicas() -> tuple[Readiness, Readiness]:
    """Each receives what the other tells."""
    one, other = [Readiness("poet", "text", 60, 600, StatesFile(None)) for _ in range(2)]
    for sender, receiver in ((one, other), (other, one)):

        def pass_on(status: ModelStatus, origin: str, receiver: Readiness = receiver) -> None:
            if origin == "local":
                receiver.receive(status)

        sender.subscribe(pass_on)
    return one, other


def test_slots_that_another_replicas_requests_have_are_no_wake_up() -> None:
    """It has come since these began, and has heard nothing of the model."""
    busy, new = replicas()
    with busy.answers():
        new.lost()
        begun = time.monotonic()
        with new.silence(begun):
            new.ask_replicas()
            new.note_question(begun)
            assert new.state == "ready"


def test_that_another_replica_waits_says_nothing_of_a_model() -> None:
    status = ModelStatus(name="poet", kind="text", state="pending")
    here = Readiness("poet", "text", 60, 600, StatesFile(None))
    here.receive(status)
    assert here.state == "unknown"


async def test_that_a_model_goes_on_answering_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "REPEAT_SECONDS", 0.01)
    store, readiness = MemoryStore(60, 1_000_000, 1_000), Readiness("poet", "text", 60, 600, StatesFile(None))
    store.shared = True
    replicas = ReadinessBroadcast(store, {"poet": readiness})
    replicas.open()
    received: list[str] = []
    store.subscribe(received.append)
    with readiness.answers():
        await eventually(lambda: len(received) >= 3)
    assert all('"state":"ready"' in message for message in received)
    await replicas.close()
