"""What the server knows of a model: an engine takes tasks and streams events.

The server is written against this interface alone, so every promise it makes is tested with a scripted engine and no
weights. The real ones are `predictor.text.transformers_engine` and `predictor.pictures.diffusers_engine`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict
from weakref import WeakKeyDictionary

from contract import problems
from contract.problems import ProblemError
from contract.request import Painting, Sampling
from contract.result import FinishReason

if TYPE_CHECKING:
    from PIL.Image import Image

    from predictor.engine.admission import Admission
    from predictor.engine.scheduler import Scheduler


class Message(TypedDict):
    """One turn of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TextTask:
    """What to write: a conversation goes through the model's chat template, a plain string goes in as it is.

    `seconds` is how long the client is going to wait; None is for ever.
    """

    prompt: str | tuple[Message, ...]
    sampling: Sampling
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PictureTask:
    """What to paint. `previews` of each picture are wanted on the way; `seconds` as for a text."""

    prompt: str
    painting: Painting
    previews: int = 0
    seconds: float | None = None


Task = TextTask | PictureTask


@dataclass(frozen=True, slots=True)
class Started:
    """The task has left the queue; `queue_s` seconds it waited there. Comes for each of several pictures."""

    queue_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of text; never empty, and never part of a stop sequence."""

    text: str


@dataclass(frozen=True, slots=True)
class TextFinished:
    """The last event of a task that ended well. Token counts include the end-of-sequence token."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Denoising steps that are done of picture number `picture`."""

    picture: int
    step: int
    of: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What picture number `picture` looks like after `step` steps, small."""

    picture: int
    step: int
    image: Image


@dataclass(frozen=True, slots=True)
class PictureFinished:
    """The last event of a picture. `understood` are the words of the prompt that the model knows, or None."""

    picture: int
    image: Image
    seed: int
    steps: int
    understood: list[str] | None


EngineEvent = Started | Token | TextFinished | Progress | Preview | PictureFinished
End = TextFinished | PictureFinished
EventListener = Callable[[EngineEvent], None]


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
        """Started, any number of Tokens, TextFinished; or what takes their place for pictures. A ProblemError is raised in
        the place of any of them."""
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


class Engine(ABC):
    """A model on its device."""

    @abstractmethod
    def load(self, report: Callable[[str], None]) -> None:
        """Get ready to generate, warm-up included. Blocks; runs once, in a thread of its own.

        `report` takes the name of each phase as it begins. Raises ModelError with one line that a user can act on.
        """

    @abstractmethod
    async def submit(self, task: Task) -> Generation:
        """Accept a task, or raise a ProblemError: the model cannot do it, or the queue is full."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether the engine still makes progress; False means that only a restart helps."""

    @property
    def places(self) -> int | None:
        """Most that can run and wait at once; None where nobody counts."""
        return None

    @property
    def strained(self) -> bool:
        """Whether it would rather be sent nothing at the moment, though it answers what comes."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Stop working and let go of the threads."""


class BatchedEngine(Engine):
    """An engine whose work is done by a Scheduler, with what its Admission lets in; `load` makes both."""

    _cook: Scheduler
    _admission: Admission

    @property
    def places(self) -> int:
        return self._admission.slots + self._admission.depth

    @property
    def alive(self) -> bool:
        return hasattr(self, "_cook") and self._cook.alive

    @property
    def strained(self) -> bool:
        return self._cook.strained

    def close(self) -> None:
        if hasattr(self, "_cook"):
            self._cook.close(shutting_down())


def shutting_down() -> ProblemError:
    return ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)


class ModelError(Exception):
    """The model cannot be served; the message is one line that says why."""
