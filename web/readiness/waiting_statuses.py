"""What is told of a generation that waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from contract import StatusEvent
from contract.events import LiveEvent
from web.readiness.model_readiness import SILENCE_SECONDS, Readiness

TELL_SECONDS = 5.0
"""How often it is told again how long a model has been waking up."""


class WaitingStatuses:
    """Tells each status once, and that a model is waking in each phase and now and then in between."""

    def __init__(self, readiness: Readiness, told: str | None = None) -> None:
        self._readiness = readiness
        self._slept = readiness.state in ("asleep", "unknown")
        self._told = told
        self._phase: str | None = None
        self._told_at = 0.0

    async def until(self, upcoming: asyncio.Future[Any]) -> AsyncGenerator[StatusEvent]:
        """The statuses of a generation until there is something else to tell of it, or no more to wait for. Closing
        them gives up what is `upcoming`."""
        patience = 0.0  # for what is there already
        try:
            while True:
                bell = asyncio.ensure_future(self._readiness.bell.wait())
                try:
                    await asyncio.wait({upcoming, bell}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    bell.cancel()
                if upcoming.done():
                    return
                for status in self._news(silent=patience > 0):
                    yield status
                patience = SILENCE_SECONDS if patience == 0 else TELL_SECONDS
        finally:
            if not upcoming.done():
                upcoming.cancel()
                await asyncio.wait({upcoming})

    def note(self, status: StatusEvent) -> bool:
        """That this status comes from somewhere else; whether it is to be told."""
        new = status.state != self._told
        self._told = status.state
        return new

    def _news(self, *, silent: bool) -> Iterator[StatusEvent]:
        waking = self._readiness.waking
        if waking is not None:
            now = time.monotonic()
            if self._told != "waking" or waking.phase != self._phase or now - self._told_at >= TELL_SECONDS:
                yield from self._readiness.events(slept=self._slept)
                self._slept = False
                self._told, self._phase, self._told_at = "waking", waking.phase, now
        elif silent and self._told != "queued":
            self._told = "queued"
            yield StatusEvent(state="queued")


async def with_waiting_statuses(readiness: Readiness, events: AsyncGenerator[LiveEvent]) -> AsyncGenerator[LiveEvent]:
    """The events of a generation, and before them what it waits for. `events` are closed by whoever made them."""
    narration = WaitingStatuses(readiness)
    first = asyncio.ensure_future(anext(events))
    async with aclosing(narration.until(first)) as statuses:
        async for status in statuses:
            yield status
    event = first.result()
    if not isinstance(event, StatusEvent) or narration.note(event):
        yield event
    async for event in events:
        yield event
