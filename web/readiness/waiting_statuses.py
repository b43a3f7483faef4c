"""The status events of a generation that waits for its model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from contract import StatusEvent
from contract.events import LiveEvent
from web.readiness.model_readiness import SILENCE_SECONDS, Readiness
from wire.first_of_two import finishes_first

REPEAT_SECONDS = 5.0
"""Between two status events of a model that is waking, where its phase does not change."""


class WaitingStatuses:
    """Yields each status once; that the model is waking, for each phase and every REPEAT_SECONDS.

    `last` is the state of the last status that the client has seen, if there was one. A model that `ran` a moment ago
    has not slept.
    """

    def __init__(self, readiness: Readiness, last: str | None = None, *, ran: bool = False) -> None:
        self._readiness = readiness
        self._slept = readiness.state in ("asleep", "unknown") and not ran
        self._last = last
        self._phase: str | None = None
        self._waking_at = 0.0

    async def until(self, upcoming: asyncio.Future[Any]) -> AsyncGenerator[StatusEvent]:
        """Status events until `upcoming` is done. Closing the generator cancels `upcoming`."""
        seconds = 0.0  # what is known already comes at once
        try:
            while True:
                await finishes_first(self._readiness.changed(), upcoming, seconds)
                if upcoming.done():
                    return
                for status in self._new(silent=seconds > 0):
                    yield status
                seconds = SILENCE_SECONDS if seconds == 0 else REPEAT_SECONDS
        finally:
            if not upcoming.done():
                upcoming.cancel()
                await asyncio.wait({upcoming})

    def note(self, status: StatusEvent) -> bool:
        """Note a status from elsewhere; whether it is new to the client."""
        new = status.state != self._last
        self._last = status.state
        return new

    def _new(self, *, silent: bool) -> Iterator[StatusEvent]:
        """Status events that are due. `silent`: the model server has not answered for a while."""
        waking = self._readiness.waking
        if waking is not None:
            now = time.monotonic()
            if self._last != "waking" or waking.phase != self._phase or now - self._waking_at >= REPEAT_SECONDS:
                yield from self._readiness.events(slept=self._slept)
                self._slept = False
                self._last, self._phase, self._waking_at = "waking", waking.phase, now
        elif silent and self._last != "queued":
            self._last = "queued"
            yield StatusEvent(state="queued")


async def with_waiting_statuses(
    readiness: Readiness, events: AsyncGenerator[LiveEvent], *, ran: bool = False
) -> AsyncGenerator[LiveEvent]:
    """The events of a generation, and before them those of its waiting. The caller closes `events`. `ran` is as in
    WaitingStatuses."""
    waiting = WaitingStatuses(readiness, ran=ran)
    first = asyncio.ensure_future(anext(events))
    async with aclosing(waiting.until(first)) as statuses:
        async for status in statuses:
            yield status
    event = first.result()
    if not isinstance(event, StatusEvent) or waiting.note(event):
        yield event
    async for event in events:
        yield event
