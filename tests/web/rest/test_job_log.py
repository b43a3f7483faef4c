"""What the REST backend writes of a job ends when it is refused, and is written later when the store is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from contract import StatusEvent, TokenEvent
from contract.events import LiveEvent
from tests.support.jobs import LIMIT, claimed, new_record
from web.jobs import journal
from web.jobs.journal import JobJournal
from web.jobs.store import ClaimLost, StoreFullError
from web.jobs.stores.memory_store import MemoryStore
from web.rest.backend import RestBackend


class EndlessBackend(RestBackend):
    """Gets one token after another."""

    def __init__(self) -> None:
        nothing: Any = None
        super().__init__({}, nothing, nothing)
        self.tokens = 0
        self.closed = False

    async def events(self, _rest_request: object) -> AsyncGenerator[LiveEvent]:
        try:
            yield StatusEvent(state="running")
            while True:
                self.tokens += 1
                yield TokenEvent(text="春")
                await asyncio.sleep(0)
        finally:
            self.closed = True


async def test_a_run_that_was_taken_over_stops_its_generation() -> None:
    store = MemoryStore(60, 1_000_000, 1_000)
    record = await store.add(new_record())
    claim = await claimed(store)
    backend = EndlessBackend()
    run = asyncio.create_task(backend.run(record, JobJournal(store).of_claim(claim)))
    async with asyncio.timeout(LIMIT):
        while backend.tokens < 10:
            await asyncio.sleep(0)
        await store.release(claim)
        await claimed(store)
        with pytest.raises(ClaimLost):
            await run
    assert backend.closed


async def test_a_start_that_cannot_be_stored_at_once_costs_no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.01)
    store = MemoryStore(60, 1_000_000, 1_000)
    record = await store.add(new_record())
    claim = await claimed(store)
    start, full = store.start, [True, True]

    async def fail_twice(*arguments: Any) -> bool:
        if full:
            full.pop()
            raise StoreFullError
        return await start(*arguments)

    monkeypatch.setattr(store, "start", fail_twice)
    backend = EndlessBackend()
    run = asyncio.create_task(backend.run(record, JobJournal(store).of_claim(claim)))
    async with asyncio.timeout(LIMIT):
        while backend.tokens < 10 and not run.done():
            await asyncio.sleep(0.01)
    stored = await store.get(record.id)
    assert stored is not None
    assert (stored.attempts, run.done()) == (1, False)
    run.cancel()
    await asyncio.wait({run})
