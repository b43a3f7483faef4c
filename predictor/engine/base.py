"""The interface of an engine: it takes tasks and streams events.

The server is written against this interface alone, so every promise it makes is tested with a scripted engine and no
weights. The real ones are `predictor.text.transformers_engine` and `predictor.pictures.diffusers_engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from contract import problems
from contract.problems import ProblemError
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task


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


def shutting_down() -> ProblemError:
    return ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
