"""The interface of an engine: it takes tasks and streams events.

The server knows this interface alone, so its promises are tested with a scripted engine and no weights. The real ones
are `predictor.text.transformers_engine` and `predictor.pictures.diffusers_engine`.
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
    def max_scheduled(self) -> int | None:
        """Most tasks that can run and wait at once; None where there is no limit."""
        return None

    @property
    def strained(self) -> bool:
        """Whether it asks for no further requests for a moment; those that come are answered."""
        return False

    @abstractmethod
    def close(self) -> None:
        """End every task with a problem, and stop the threads."""


def shutting_down() -> ProblemError:
    return ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
