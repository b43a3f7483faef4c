"""What the REST backend writes of a job ends when it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from contract import StatusEvent, TokenEvent
from contract.events import LiveEvent
from tests.support.jobs import LIMIT, claimed, new_record
from web.jobs.journal import JobJournal
from web.jobs.store import ClaimLost
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
