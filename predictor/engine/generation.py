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
from predictor.engine.events import End, EngineEvent, EventListener, PictureFinished, Started, TextFinished, Token


@dataclass(frozen=True, slots=True)
class Completion:
    """All events of a task in one. `first_token_at` is on the clock of time.monotonic, and the end's where there is no
    token."""

    text: str
    queue_s: float
    end: TextFinished
    first_token_at: float = field(compare=False)


class _Mailbox:
    """Events on their way to an event loop. One wake-up carries all that came before it: waking a loop for each row of
    each step takes longer than many a step."""

    def __init__(self) -> None:
        self._letters: deque[tuple[asyncio.Queue[EngineEvent | ProblemError], EngineEvent | ProblemError]] = deque()
        self._called = False

    def post(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[EngineEvent | ProblemError],
        event: EngineEvent | ProblemError,
    ) -> None:
        """From any thread; a RuntimeError when the loop is gone."""
        self._letters.append((queue, event))
        if not self._called:
            self._called = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._called = False  # before looking, so that what comes while looking calls again
        while self._letters:
            queue, event = self._letters.popleft()
            queue.put_nowait(event)


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()


class Generation:
    """One accepted task: iterate over its events, `close` it to free its slot at the next token or step. It has as many
    ends as `parts`.

    The engine publishes from any thread; the server iterates on the event loop it was made on.
    """

    def __init__(self, parts: int = 1) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._mailbox = _mailboxes.setdefault(self._loop, _Mailbox())
        self._events: asyncio.Queue[EngineEvent | ProblemError] = asyncio.Queue()  # bounded by the task's max_tokens
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        """Nobody wants the rest. May be called more than once, and after the end."""
        self._closed.set()

    def publish(self, event: EngineEvent | ProblemError) -> None:
        try:
            self._mailbox.post(self._loop, self._events, event)
        except RuntimeError:  # the loop is gone, and with it everybody who could listen
            self.close()

    async def __aiter__(self) -> AsyncIterator[EngineEvent]:
        """Of a text: Started, any number of Tokens, TextFinished. Of pictures: Started, Progress, Preview and
        PictureFinished of each. Raises a ProblemError in the place of any of them."""
        left = self._parts
        while left:
            event = await self._events.get()
            if isinstance(event, ProblemError):
                raise event
            yield event
            left -= isinstance(event, End)

    async def complete(self, watch: EventListener | None = None) -> Completion:
        """Wait for the end; giving up waiting closes the generation. `watch` is told every event."""
        queue_s = 0.0
        pieces: list[str] = []
        first_token_at: float | None = None
        try:
            async for event in self:
                if watch is not None:
                    watch(event)
                match event:
                    case Started():
                        queue_s = event.queue_s
                    case Token():
                        first_token_at = first_token_at or time.monotonic()
                        pieces.append(event.text)
                    case TextFinished():
                        return Completion("".join(pieces), queue_s, event, first_token_at or time.monotonic())
        finally:
            self.close()
        raise AssertionError("a generation ends with TextFinished or raises")

    async def pictures(self, watch: EventListener | None = None) -> tuple[list[PictureFinished], float]:
        """Wait for all pictures, and for how long the last of them was queued; giving up waiting closes the
        generation. `watch` is told every event."""
        queue_s = 0.0
        painted: list[PictureFinished] = []
        try:
            async for event in self:
                if watch is not None:
                    watch(event)
                if isinstance(event, Started):
                    queue_s = max(queue_s, event.queue_s)
                elif isinstance(event, PictureFinished):
                    painted.append(event)
        finally:
            self.close()
        return sorted(painted, key=lambda one: one.picture), queue_s
