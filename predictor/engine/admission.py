"""The wait in front of the slots: bounded, fair to short and long, and honest about how long it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.engine.generation import Generation


@dataclass(slots=True, eq=False)
class ScheduledTask:
    """An accepted task. `work` says how much it is at most beside others: tokens, or pixels times steps. `cost` says
    how long it takes beside others, where that is known beforehand: a text may end at any token."""

    generation: Generation
    work: float
    deadline: float | None = None  # on the clock of time.monotonic
    accepted_at: float = field(default_factory=time.monotonic)
    taken_at: float = 0.0
    first_step_at: float | None = None

    @property
    def cost(self) -> float:
        return 1.0

    @property
    def waited(self) -> float:
        """Seconds since it was accepted."""
        return time.monotonic() - self.accepted_at

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


_TURNS: tuple[Callable[[ScheduledTask], float], ...] = (
    lambda job: job.work,
    lambda job: -job.work,
    lambda job: job.accepted_at,
)
"""Whose turn it is when a slot is free: the shortest, so that it is not stuck behind long ones; the longest, so that it
does not run on alone in the end; the oldest, so that nobody is passed over for ever."""


class ServiceTime:
    """How long a generation of cost 1 takes, learned from those that have ended. Seconds, smoothed."""

    WEIGHT = 0.2

    def __init__(self) -> None:
        self.generation_s = 1.0
        self._learned = False

    def learn(self, generation_s: float) -> None:
        weight = self.WEIGHT if self._learned else 1.0
        self.generation_s += weight * (generation_s - self.generation_s)
        self._learned = True

    def wait_s(self, ahead: int, slots: int) -> float:
        """Until a slot is free for the next one, when `ahead` are served or wait before it."""
        return max(0, ahead - slots + 1) / slots * self.generation_s


class Admission:
    """Knative's breaker in front of the engine thread: up to `slots` in the batch and `depth` that wait, no more.

    Any thread may `admit`; one thread takes. A job that nobody waits for any more gives up its place.
    """

    def __init__(self, slots: int, depth: int) -> None:
        self.slots = slots
        self.depth = depth
        self.pace = ServiceTime()
        self._waiting: list[ScheduledTask] = []
        self._served = 0
        self._served_cost = 0.0
        self._turn = 0
        self._changed = threading.Condition()
        self._closed: ProblemError | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def served(self) -> int:
        return self._served

    @property
    def retry_after(self) -> float:
        """Seconds until one of those that wait now will have been served."""
        return self._wait_s(len(self._waiting) + self._served)

    def admit(self, job: ScheduledTask) -> None:
        """Let a job in, or raise the problem that refuses it: full, too late to be finished, or closed."""
        try:
            self._admit(job)
        except ProblemError as error:
            metrics.REJECTED.labels(error.kind.slug).inc()
            raise

    def _admit(self, job: ScheduledTask) -> None:
        with self._changed:
            if self._closed:
                raise self._closed.with_traceback(None)  # else it would hold on to everyone it was raised to
            self._forget_the_gone()
            ahead = len(self._waiting) + self._served
            if ahead >= self.slots + self.depth:
                raise ProblemError(
                    problems.OVERLOADED,
                    f"{self._served} requests are running and {len(self._waiting)} are waiting; no more are taken.",
                    retry_after=self.retry_after,
                )
            if job.deadline is not None:
                expected = self._wait_s(ahead) + self.pace.generation_s * job.cost
                left = job.deadline - time.monotonic()
                if ahead >= self.slots and expected > left:
                    raise ProblemError(
                        problems.OVERLOADED,
                        f"This would take about {expected:.1f} s; the request gives it {max(0.0, left):.1f} s.",
                        retry_after=self.retry_after,
                    )
            self._waiting.append(job)
            self._changed.notify()

    def take(self, *, block: bool) -> ScheduledTask | None:
        """The next job to be served; None when there is none, or after `close` if it blocks."""
        with self._changed:
            while True:
                self._forget_the_gone()
                if self._waiting:
                    job = min(self._waiting, key=_TURNS[self._turn])
                    self._waiting.remove(job)
                    self._turn = (self._turn + 1) % len(_TURNS) if self._waiting else 0
                    self._served += 1
                    self._served_cost += job.cost
                    job.taken_at = time.monotonic()
                    return job
                if self._closed or not block:
                    return None
                self._changed.wait()

    def done(self, job: ScheduledTask, *, well: bool) -> None:
        """A job that was taken is served; `well` if it ran to its end."""
        with self._changed:
            self._served -= 1
            self._served_cost -= job.cost
            if well:
                self.pace.learn((time.monotonic() - job.taken_at) / job.cost)

    def sweep(self) -> None:
        """Let go of those that nobody waits for any more, and tell those whose time is over."""
        with self._changed:
            self._forget_the_gone()

    def close(self, problem: ProblemError) -> list[ScheduledTask]:
        """Take no more; the jobs that still wait are handed back."""
        with self._changed:
            self._closed = problem
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
            return left

    def _wait_s(self, ahead: int) -> float:
        """Seconds until a slot is free for the next one, when so many are served or wait before it."""
        cost = self._served_cost + sum(job.cost for job in self._waiting)
        return self.pace.wait_s(ahead, self.slots) * (cost / ahead if ahead else 1.0)

    def _forget_the_gone(self) -> None:
        kept = []
        for job in self._waiting:
            if job.generation.closed:
                metrics.CANCELLED.labels("waiting").inc()
                continue
            if job.expired:
                metrics.REJECTED.labels(problems.TOO_LATE.slug).inc()
                job.generation.publish(too_late(job))
                continue
            kept.append(job)
        self._waiting = kept


def too_late(job: ScheduledTask) -> ProblemError:
    return ProblemError(problems.TOO_LATE, f"The request's time was over after {job.waited:.1f} s.")
