"""The status events of a generation that waits, each only where something shows it: see the table in
web.readiness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Literal

from contract import StatusEvent
from contract.events import LiveEvent
from web.readiness.model_readiness import FIRST_STATUS_SECONDS, Readiness
from web.readiness.state import SILENCE_SECONDS
from wire.concurrency.first_of_two import finishes_first

REPEAT_SECONDS = 5.0
"""Between two status events of a model that is waking, where its phase does not change."""


PASSED_ON = StatusEvent(state="pending")
"""What a backend yields when it passes a request on."""


class WakeUpStatuses:
    """Yields that the model is asleep, where that is reported, and that it is waking, for each phase and every
    REPEAT_SECONDS. A model that `ran` a moment ago has not slept."""

    def __init__(self, readiness: Readiness, *, ran: bool = False) -> None:
        self._readiness = readiness
        self._slept = readiness.state not in ("ready", "waking") and not ran
        self._last: str | None = None
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
                for status in self._new():
                    yield status
                seconds = self._seconds
        finally:
            if not upcoming.done():
                upcoming.cancel()
                await asyncio.wait({upcoming})

    @property
    def _seconds(self) -> float:
        """Until something may be new without a change of the readiness."""
        return REPEAT_SECONDS if self._last == "waking" else SILENCE_SECONDS

    def _new(self) -> Iterator[StatusEvent]:
        """Status events that are due."""
        waking = self._readiness.waking
        if waking is not None:
            now = time.monotonic()
            if self._last != "waking" or waking.phase != self._phase or now - self._waking_at >= REPEAT_SECONDS:
                yield from self._readiness.events(slept=self._slept and self._last != "asleep")
                self._slept = False
                self._last, self._phase, self._waking_at = "waking", waking.phase, now
        elif self._readiness.reported != "asleep":
            yield from self._of_request()
        elif self._last is None:
            self._last = "asleep"
            yield StatusEvent(state="asleep", expected_seconds=self._readiness.expected_seconds)

    def _of_request(self) -> Iterator[StatusEvent]:
        """Of a request to a model that is not known to sleep."""
        self._last = None
        yield from ()


class WaitingStatuses(WakeUpStatuses):
    """Yields besides where the request is: held here, passed on, or in a queue of the model server."""

    def __init__(self, readiness: Readiness, *, ran: bool = False) -> None:
        super().__init__(readiness, ran=ran)
        self._since = time.monotonic()
        self.passed_on = False

    def note_passed_on(self) -> None:
        self.passed_on, self._since = True, time.monotonic()

    def note(self, status: StatusEvent) -> bool:
        """Note a status from elsewhere; whether it is new to the client."""
        new = status.state != self._last
        self._last = status.state
        return new

    @property
    def _seconds(self) -> float:
        left = self._since + FIRST_STATUS_SECONDS - time.monotonic()
        return left if left > 0 and self._last != "waking" else super()._seconds

    def _of_request(self) -> Iterator[StatusEvent]:
        if self._last == "waking":  # now that it is ready, the request is passed on once more
            self._last, self._since = None, time.monotonic()
        state = self._state
        if state is not None and state != self._last:
            self._last = state
            yield StatusEvent(state=state)

    @property
    def _state(self) -> Literal["queued", "pending"] | None:
        seconds = time.monotonic() - self._since
        if seconds < FIRST_STATUS_SECONDS:
            return None
        if not self.passed_on:  # it is held here
            return "queued"
        return "queued" if seconds >= SILENCE_SECONDS and self._readiness.answering else "pending"


async def with_waiting_statuses(
    readiness: Readiness, events: AsyncGenerator[LiveEvent], *, ran: bool = False
) -> AsyncGenerator[LiveEvent]:
    """The events of a generation, and before them those of its waiting. That it was PASSED_ON is one of these only
    where nothing is heard for a while. The caller closes `events`. `ran` is as in WakeUpStatuses."""
    waiting = WaitingStatuses(readiness, ran=ran)
    while True:
        first = asyncio.ensure_future(anext(events))
        async with aclosing(waiting.until(first)) as statuses:
            async for status in statuses:
                yield status
        event = first.result()
        if event != PASSED_ON:
            break
        waiting.note_passed_on()
    if not isinstance(event, StatusEvent) or waiting.note(event):
        yield event
    async for event in events:
        if event != PASSED_ON:
            yield event
