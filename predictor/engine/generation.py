"""An accepted task and its stream of events, from the engine's thread to the server's event loop."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from contract.problems import ProblemError
from contract.texts.logprobs import TokenLogprob
from contract.texts.tools import CalledFunction, ToolCall
from predictor.engine.events import (
    End,
    EngineEvent,
    EventListener,
    PictureFinished,
    Reasoning,
    Started,
    TextFinished,
    Token,
    ToolCallPiece,
)


@dataclass(frozen=True, slots=True)
class Completion:
    """All events of a text in one. `first_token_at` is on the clock of time.monotonic; that of the end if there was no
    token. `reasoning` and `tool_calls` are empty where the model wrote none, and `logprobs` None where nobody asked."""

    text: str
    queue_s: float
    end: TextFinished
    first_token_at: float = field(compare=False)
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class GenerationObserver(Protocol):
    """Is told what becomes of a generation: for logs and traces."""

    def note(self, event: EngineEvent | ProblemError) -> None:
        """The event is taken."""

    def end(self) -> None:
        """It is closed. May be called more than once."""


PIECE_SECONDS = 0.01
"""Between two deliveries of the pieces of texts: no screen shows more than that, and a small model writes several
meanwhile. To send each by itself takes a server as long as the model took to write it."""


class _EventRelay:
    """Carries events to an event loop. One wake-up delivers all that have come by then: to wake a loop for each row of
    each step takes longer than a step of a small model."""

    def __init__(self) -> None:
        self._undelivered: deque[tuple[asyncio.Queue[EngineEvent | ProblemError], EngineEvent | ProblemError]] = deque()
        self._scheduled = False
        self._at_once = False
        self._later: asyncio.TimerHandle | None = None
        self._delivered_at = -math.inf

    def send(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[EngineEvent | ProblemError],
        event: EngineEvent | ProblemError,
        *,
        at_once: bool,
    ) -> None:
        """From any thread. What need not be there `at_once` comes PIECE_SECONDS after the last delivery, or with the
        next that need. Raises RuntimeError when the loop is closed."""
        self._undelivered.append((queue, event))
        if not self._scheduled or (at_once and not self._at_once):
            self._scheduled = True
            self._at_once |= at_once
            loop.call_soon_threadsafe(self._deliver_in_time, loop)

    def _deliver_in_time(self, loop: asyncio.AbstractEventLoop) -> None:
        due = self._delivered_at + PIECE_SECONDS
        if self._at_once or loop.time() >= due:
            self._deliver(loop)
        elif self._later is None:
            self._later = loop.call_at(due, self._deliver, loop)

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> None:
        # Before the deliveries, so that an event that comes during them schedules another one.
        self._scheduled = self._at_once = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._delivered_at = loop.time()
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
        self.parts = parts
        self._loop = asyncio.get_running_loop()
        self._relay = _relays.setdefault(self._loop, _EventRelay())
        self._events: asyncio.Queue[EngineEvent | ProblemError] = asyncio.Queue()  # bounded by the task's max_tokens
        self._closed = threading.Event()
        self._has_pieces = False
        self.observer: GenerationObserver | None = None

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
        if self.observer is not None:
            self.observer.end()

    def publish(self, event: EngineEvent | ProblemError) -> None:
        """At once, or shortly after where it is a further piece of a text."""
        is_piece = isinstance(event, Token | Reasoning | ToolCallPiece)
        may_wait = is_piece and self._has_pieces
        self._has_pieces |= is_piece
        try:
            self._relay.send(self._loop, self._events, event, at_once=not may_wait)
        except RuntimeError:  # the loop is closed, and with it every client
            self.close()

    async def __aiter__(self) -> AsyncIterator[EngineEvent]:
        """A text: Started, any number of Reasonings, then of Tokens, then of ToolCallPieces, TextFinished. Pictures:
        Started, Progress, Preview and PictureFinished of each. Raises the ProblemError that a part ends with."""
        left = self.parts
        while left:
            event = await self._events.get()
            if self.observer is not None:
                self.observer.note(event)
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
        logprobs: list[TokenLogprob] | None = None
        calls: list[ToolCallPiece] = []
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
                        if isinstance(event, Token) and event.logprobs is not None:
                            logprobs = logprobs or []
                            logprobs += event.logprobs
                    case ToolCallPiece():
                        first_token_at = first_token_at or time.monotonic()
                        calls.append(event)
                    case TextFinished():
                        first_token_at = first_token_at or time.monotonic()
                        return Completion(
                            "".join(pieces),
                            queue_s,
                            event,
                            first_token_at,
                            "".join(reasoning),
                            None if logprobs is None else tuple(logprobs),
                            _joined(calls),
                        )
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


def _joined(pieces: Sequence[ToolCallPiece]) -> tuple[ToolCall, ...]:
    """The calls of these pieces."""
    calls: dict[int, tuple[str, str, list[str]]] = {}
    for piece in pieces:
        _, _, arguments = calls.setdefault(piece.index, (piece.id or "", piece.name or "", []))
        arguments.append(piece.arguments)
    return tuple(
        ToolCall(id=id, function=CalledFunction(name=name, arguments="".join(arguments)))
        for id, name, arguments in calls.values()
    )
