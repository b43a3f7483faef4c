"""An accepted task and its stream of events, from the engine's thread to the server's event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from contract.problems import ProblemError
from predictor.engine.events import (
    End,
    EngineEvent,
    EventListener,
    PictureFinished,
    Reasoning,
    Started,
    TextFinished,
    Token,
)


@dataclass(frozen=True, slots=True)
class Completion:
    """All events of a text in one. `first_token_at` is on the clock of time.monotonic; that of the end if there was no
    token. `reasoning` is empty where the model wrote none."""

    text: str
    queue_s: float
    end: TextFinished
    first_token_at: float = field(compare=False)
    reasoning: str = ""


class _EventRelay:
    """Carries events to an event loop. One wake-up delivers all that have come by then: to wake a loop for each row of
    each step takes longer than a step of a small model."""

    def __init__(self) -> None:
        self._undelivered: deque[tuple[asyncio.Queue[EngineEvent | ProblemError], EngineEvent | ProblemError]] = deque()
        self._scheduled = False

    def send(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[EngineEvent | ProblemError],
        event: EngineEvent | ProblemError,
    ) -> None:
        """From any thread. Raises RuntimeError when the loop is closed."""
        self._undelivered.append((queue, event))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False  # before the loop, so that an event that comes during it schedules another delivery
        while self._undelivered:
            queue, event = self._undelivered.popleft()
            queue.put_nowait(event)


_relays: WeakKeyDictionary[asyncio.AbstractEventLoop, _EventRelay] = WeakKeyDictionary()


class Generation:
    """One accepted task. Iterate over its events; `close` it to free its slot at the next token or step.

    It has one end for each of its `parts`: a text is one part, and so is each picture. The engine publishes from any
    thread; the server iterates on the event loop that it was made on.
    """

    def __init__(self, parts: int = 1) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._relay = _relays.setdefault(self._loop, _EventRelay())
        self._events: asyncio.Queue[EngineEvent | ProblemError] = asyncio.Queue()  # bounded by the task's max_tokens
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def has_more(self) -> bool:
        """Whether an event is there that nobody has taken yet."""
        return not self._events.empty()

    def close(self) -> None:
        """The rest is not wanted. May be called more than once, and after the end."""
        self._closed.set()

    def publish(self, event: EngineEvent | ProblemError) -> None:
        try:
            self._relay.send(self._loop, self._events, event)
        except RuntimeError:  # the loop is closed, and with it every client
            self.close()

    async def __aiter__(self) -> AsyncIterator[EngineEvent]:
        """A text: Started, any number of Reasonings and then of Tokens, TextFinished. Pictures: Started, Progress,
        Preview and PictureFinished of each. Raises the ProblemError that a part ends with."""
        left = self._parts
        while left:
            event = await self._events.get()
            if isinstance(event, ProblemError):
                raise event
            yield event
            left -= isinstance(event, End)

    async def complete(self, listener: EventListener | None = None) -> Completion:
        """Wait for the end of a text; cancelling the wait closes the generation. `listener` is called with each
        event."""
        queue_s = 0.0
        pieces: list[str] = []
        reasoning: list[str] = []
        first_token_at: float | None = None
        try:
            async for event in self:
                if listener is not None:
                    listener(event)
                match event:
                    case Started():
                        queue_s = event.queue_s
                    case Token() | Reasoning():
                        first_token_at = first_token_at or time.monotonic()
                        (pieces if isinstance(event, Token) else reasoning).append(event.text)
                    case TextFinished():
                        first_token_at = first_token_at or time.monotonic()
                        return Completion("".join(pieces), queue_s, event, first_token_at, "".join(reasoning))
        finally:
            self.close()
        raise AssertionError("a generation ends with TextFinished or raises")

    async def pictures(self, listener: EventListener | None = None) -> tuple[list[PictureFinished], float]:
        """All pictures by number, and the seconds that the last of them was queued; cancelling the wait closes the
        generation. `listener` is called with each event."""
        queue_s = 0.0
        pictures: list[PictureFinished] = []
        try:
            async for event in self:
                if listener is not None:
                    listener(event)
                if isinstance(event, Started):
                    queue_s = max(queue_s, event.queue_s)
                elif isinstance(event, PictureFinished):
                    pictures.append(event)
        finally:
            self.close()
        return sorted(pictures, key=lambda each: each.picture), queue_s
