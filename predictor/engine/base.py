"""The interface of an engine: it takes tasks and streams events.

The server knows this interface alone, so its promises are tested with a scripted engine and no weights. The real ones
are `predictor.text.transformers_engine` and `predictor.pictures.diffusers_engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from contract import problems
from contract.models.description import NOT_DESCRIBED, ModelDescription
from contract.problems import ProblemError
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task

SleepLevel = Literal[1, 2]
"""Named as vLLM names them: 1 keeps the weights on the host, 2 drops them."""


class Engine(ABC):
    """A model on its device."""

    @abstractmethod
    def load(self, report: Callable[[str], None]) -> None:
        """Get ready to generate, warm-up included. Blocks; called once, on a thread of its own.

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
    def fingerprint(self) -> str | None:
        """What decides an answer beside the request, as a name (predictor.loading.fingerprint); None if not known."""
        return None

    @property
    def description(self) -> ModelDescription:
        """What the loaded model says of itself; nothing before that."""
        return NOT_DESCRIBED

    @property
    def max_scheduled(self) -> int | None:
        """Most tasks that can run and wait at once; None where there is no limit."""
        return None

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether no accepted task runs or waits."""

    @property
    @abstractmethod
    def sleeping(self) -> SleepLevel | None:
        """The level at which it sleeps; None while it is awake."""

    @property
    @abstractmethod
    def usual_sleep_level(self) -> SleepLevel:
        """The level where nobody has said which. Known once it is loaded."""

    @abstractmethod
    def sleep(self, level: SleepLevel) -> None:
        """Give back the caches, and the device's memory. At level 1 the weights wait on the host, at level 2 they are
        dropped. Blocks; called while no task is submitted. Tasks that still run or wait end with a problem.

        From level 1 it can fall to level 2; a level that is no deeper changes nothing. Raises when the weights cannot
        be kept, and is awake then, or when the device is stuck.
        """

    @abstractmethod
    def wake_up(self) -> None:
        """Get ready to generate again, as after `load`. Blocks. Raises when that fails: it sleeps on, at the same
        level, and may be woken again."""

    @property
    def strained(self) -> bool:
        """Whether it asks for no further requests for a moment; those that come are answered."""
        return False

    @abstractmethod
    def close(self) -> None:
        """End every task with a problem, and stop the threads."""


def put_to_sleep() -> ProblemError:
    return ProblemError(problems.UNAVAILABLE, "The model was put to sleep.", retry_after=1)


def shutting_down() -> ProblemError:
    return ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
