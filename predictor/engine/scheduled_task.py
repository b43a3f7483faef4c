"""An accepted task, in the queue or in a slot."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from contract import problems
from contract.problems import ProblemError
from predictor.engine.generation import Generation


@dataclass(slots=True, eq=False)
class ScheduledTask:
    """Times are on the clock of time.monotonic.

    `work` is an upper bound that orders the queue: tokens of a text, pixels times steps of a picture.
    """

    generation: Generation
    work: float
    deadline: float | None = None
    accepted_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    first_step_at: float | None = None

    @property
    def cost(self) -> float:
        """How long it takes in relation to other tasks. 1 where that is not known beforehand: a text may end at any
        token."""
        return 1.0

    @property
    def age_s(self) -> float:
        """Seconds since it was accepted."""
        return time.monotonic() - self.accepted_at

    @property
    def queue_s(self) -> float:
        """Seconds from acceptance to a slot."""
        return self.started_at - self.accepted_at

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


def too_late(task: ScheduledTask) -> ProblemError:
    """The problem that an expired task ends with."""
    return ProblemError(problems.TOO_LATE, f"The request's time was over after {task.age_s:.1f} s.")
