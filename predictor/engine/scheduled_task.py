"""An accepted task, in the queue or in a slot."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from contract import problems
from contract.callers import DEFAULT_CALLER
from contract.problems import ProblemError
from predictor import metrics
from predictor.engine.events import End, PictureFinished
from predictor.engine.generation import Generation

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class ScheduledTask:
    """Times are on the clock of time.monotonic.

    `work` is an upper bound that orders the queue: tokens of a text, pixels times steps of a picture. Those of each
    `caller` come in turn.
    """

    generation: Generation
    work: float
    deadline: float | None = None
    caller: str = DEFAULT_CALLER
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


@dataclass(frozen=True, slots=True)
class SchedulerSnapshot:
    """The scheduler at one moment.

    `slots` are those that memory was found to hold, `usable_slots` those that may be filled at present. `displaced` of
    the tasks have left the batch after a failure and join it again. `idle`: the thread waits for a task.
    """

    tasks: tuple[ScheduledTask, ...]
    displaced: int
    slots: int
    usable_slots: int
    idle: bool


def too_late(task: ScheduledTask) -> ProblemError:
    """The problem that an expired task ends with."""
    return ProblemError(problems.TOO_LATE, f"The request's time was over after {task.age_s:.1f} s.")


def model_failed(failure: Exception | None = None, so_far: str = "") -> ProblemError:
    """The problem of a task that failed for a reason which is none of the client's business: its own work may have
    raised `failure`, after it had come `so_far`. But a ProblemError says what is wrong with the request."""
    if isinstance(failure, ProblemError):
        return failure
    if failure is not None:
        log.error("a request failed by itself, at %s", so_far, exc_info=failure)
    return ProblemError(problems.INTERNAL, "The model failed on this request; the server's log says why.")


def observe_end(task: ScheduledTask, end: End) -> None:
    """Count a text or a picture that ended well."""
    now = time.monotonic()
    metrics.WHOLE.observe(now - task.accepted_at)
    if isinstance(end, PictureFinished):
        metrics.STEPS.inc(end.steps)
        metrics.FINISHED.labels("stop").inc()
        return
    if task.first_step_at is not None and end.completion_tokens > 1:
        metrics.PER_TOKEN.observe((now - task.first_step_at) / (end.completion_tokens - 1))
    metrics.PROMPT_TOKENS.inc(end.prompt_tokens)
    metrics.GENERATION_TOKENS.inc(end.completion_tokens)
    metrics.FINISHED.labels(end.finish_reason).inc()
