"""An engine that says what a test told it to."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contract import problems
from contract.models.description import NOT_DESCRIBED, ModelDescription
from contract.problems import ProblemError
from contract.result import FinishReason
from predictor.engine.base import Engine, SleepLevel, put_to_sleep
from predictor.engine.events import Reasoning, Started, TextFinished, Token, ToolCallPiece
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task, TextTask
from tests.support.waiting import SECONDS


@dataclass
class Script:
    """What the engine says to one task: each piece is a text, alone or as a Token, reasoning, of a call, a gate to wait
    at, or an exception to end with."""

    pieces: tuple[str | Token | Reasoning | ToolCallPiece | asyncio.Event | Exception, ...]
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 3
    completion_tokens: int = 2
    cached_tokens: int = 0
    queue_s: float = 0.25


class ScriptedEngine(Engine):
    """Says what it was told to. Records the tasks it got and the generations it made."""

    def __init__(self) -> None:
        self.tasks: list[TextTask] = []
        self.generations: list[Generation] = []
        self.loading = threading.Event()
        self.load_gate = threading.Event()
        self.load_error: BaseException | None = None
        self.is_alive = True
        self.stopped = False
        self.max_places: int | None = None
        self.told = NOT_DESCRIBED
        self.slept: list[SleepLevel] = []
        self.sleep_error: Exception | None = None
        self.sleep_gate = threading.Event()
        self.sleep_gate.set()
        self.wakes = 0
        self.wake_errors: list[Exception] = []
        self.waking = threading.Event()
        self.wake_gate = threading.Event()
        self.wake_gate.set()
        self._sleeping: SleepLevel | None = None
        self._scripts: deque[Script | Exception] = deque()
        self._speakers: set[asyncio.Task[None]] = set()

    def enqueue(
        self, *pieces: str | Token | Reasoning | ToolCallPiece | asyncio.Event | Exception, **ending: Any
    ) -> None:
        """What to say to the next task that has no script yet."""
        self._scripts.append(Script(pieces, **ending))

    def refuse(self, error: Exception) -> None:
        """Raise this when the next task is submitted."""
        self._scripts.append(error)

    @property
    def closed(self) -> list[bool]:
        return [generation.closed for generation in self.generations]

    def load(self, report: Callable[[str], None]) -> None:
        report("pretending to load")
        self.loading.set()
        assert self.load_gate.wait(SECONDS)
        if self.load_error:
            raise self.load_error

    async def submit(self, task: Task) -> Generation:
        assert isinstance(task, TextTask)
        assert self._sleeping is None, "no task reaches an engine that is not whole"
        self.tasks.append(task)
        script = self._scripts.popleft()
        if isinstance(script, Exception):
            raise script
        generation = Generation()
        self.generations.append(generation)
        speaker = asyncio.create_task(self._speak(generation, script))
        self._speakers.add(speaker)
        speaker.add_done_callback(self._speakers.discard)
        return generation

    async def _speak(self, generation: Generation, script: Script) -> None:
        generation.publish(Started(script.queue_s))
        for piece in script.pieces:
            match piece:
                case str():
                    generation.publish(Token(piece))
                case Token() | Reasoning() | ToolCallPiece():
                    generation.publish(piece)
                case asyncio.Event():
                    await piece.wait()
                case _:
                    generation.publish(piece)  # type: ignore[arg-type]  # only ProblemErrors make sense here
                    return
        generation.publish(
            TextFinished(script.finish_reason, script.prompt_tokens, script.completion_tokens, script.cached_tokens)
        )

    @property
    def alive(self) -> bool:
        return self.is_alive

    @property
    def description(self) -> ModelDescription:
        return self.told

    @property
    def max_scheduled(self) -> int | None:
        return self.max_places

    @property
    def idle(self) -> bool:
        return not self._speakers

    @property
    def sleeping(self) -> SleepLevel | None:
        return self._sleeping

    @property
    def usual_sleep_level(self) -> SleepLevel:
        return 2

    def sleep(self, level: SleepLevel) -> None:
        assert self.sleep_gate.wait(SECONDS)
        if self.sleep_error:
            raise self.sleep_error
        for generation in self.generations:
            generation.publish(put_to_sleep())
        self._sleeping = level
        self.slept.append(level)

    def wake_up(self) -> None:
        self.waking.set()
        assert self.wake_gate.wait(SECONDS)
        self.wakes += 1
        if self.wake_errors:
            raise self.wake_errors.pop(0)
        self._sleeping = None

    def close(self) -> None:
        self.stopped = True
        for gate in (self.load_gate, self.sleep_gate, self.wake_gate):
            gate.set()
        for speaker in self._speakers:
            speaker.cancel()
        for generation in self.generations:  # those that have ended hear nothing any more
            generation.publish(ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1))
