"""The bounded queue in front of the slots, and which task is next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.engine.scheduled_task import ScheduledTask, too_late

_TURNS: tuple[Callable[[ScheduledTask], float], ...] = (
    lambda task: task.work,
    lambda task: -task.work,
    lambda task: task.accepted_at,
)
"""Free slots go in turn to the shortest task, so that it does not wait behind long ones; to the longest, so that it
does not run alone at the end; and to the oldest, so that none waits for ever."""


class ServiceTime:
    """Exponentially smoothed seconds that a generation of cost 1 takes, from which `Retry-After` comes. One second
    until the first has ended."""

    WEIGHT = 0.2

    def __init__(self) -> None:
        self.generation_s = 1.0
        self._learned = False

    def learn(self, generation_s: float) -> None:
        """Take in what a generation took, in seconds divided by its cost."""
        weight = self.WEIGHT if self._learned else 1.0
        self.generation_s += weight * (generation_s - self.generation_s)
        self._learned = True

    def wait_s(self, ahead: int, slots: int) -> float:
        """Seconds until a slot is free for the next task when `ahead` tasks run or wait before it."""
        return max(0, ahead - slots + 1) / slots * self.generation_s


class Admission:
    """At most `slots` tasks that run and `max_waiting` that wait, as in the breaker of Knative's queue-proxy.

    Any thread may call `admit`; one thread calls `next_task`. A waiting task whose client has left gives up its place.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self.slots = slots
        self.max_waiting = max_waiting
        self.service_time = ServiceTime()
        self._waiting: list[ScheduledTask] = []
        self._running = 0
        self._running_cost = 0.0
        self._turn = 0
        self._changed = threading.Condition()
        self._closed: ProblemError | None = None

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Tasks that have a slot."""
        return self._running

    @property
    def retry_after(self) -> float:
        """Seconds until a slot is free for a new task, by the service time."""
        return self._wait_s(len(self._waiting) + self._running)

    def admit(self, task: ScheduledTask) -> None:
        """Queue a task. Raises the ProblemError that refuses it: full, its deadline is too near, or closed."""
        try:
            self._admit(task)
        except ProblemError as error:
            metrics.REJECTED.labels(error.kind.slug).inc()
            raise

    def _admit(self, task: ScheduledTask) -> None:
        with self._changed:
            if self._closed:
                raise self._closed.with_traceback(None)  # a traceback keeps the frames of all who raised it before
            self._purge()
            ahead = len(self._waiting) + self._running
            if ahead >= self.slots + self.max_waiting:
                raise ProblemError(
                    problems.OVERLOADED,
                    f"{self._running} requests are running and {len(self._waiting)} are waiting; no more are taken.",
                    retry_after=self.retry_after,
                )
            if task.deadline is not None:
                expected = self._wait_s(ahead) + self.service_time.generation_s * task.cost
                left = task.deadline - time.monotonic()
                if ahead >= self.slots and expected > left:
                    raise ProblemError(
                        problems.OVERLOADED,
                        f"This would take about {expected:.1f} s; the request gives it {max(0.0, left):.1f} s.",
                        retry_after=self.retry_after,
                    )
            self._waiting.append(task)
            self._changed.notify()

    def next_task(self, *, block: bool) -> ScheduledTask | None:
        """Give the next task a slot. None when no task waits; with `block` that is only after `close`."""
        with self._changed:
            while True:
                self._purge()
                if self._waiting:
                    task = min(self._waiting, key=_TURNS[self._turn])
                    self._waiting.remove(task)
                    self._turn = (self._turn + 1) % len(_TURNS) if self._waiting else 0
                    self._running += 1
                    self._running_cost += task.cost
                    task.started_at = time.monotonic()
                    return task
                if self._closed or not block:
                    return None
                self._changed.wait()

    def release(self, task: ScheduledTask, *, completed: bool) -> None:
        """Free the slot of a task. Only one that ran to its end teaches the service time."""
        with self._changed:
            self._running -= 1
            self._running_cost -= task.cost
            if completed:
                self.service_time.learn((time.monotonic() - task.started_at) / task.cost)

    def purge(self) -> None:
        """Remove waiting tasks whose client has left, and end those whose deadline is over."""
        with self._changed:
            self._purge()

    def close(self, problem: ProblemError) -> list[ScheduledTask]:
        """Refuse every further task with `problem`; the tasks that still wait are returned."""
        with self._changed:
            self._closed = problem
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
            return left

    def _wait_s(self, ahead: int) -> float:
        """Seconds until a slot is free when `ahead` tasks run or wait, weighted by what they cost."""
        cost = self._running_cost + sum(task.cost for task in self._waiting)
        return self.service_time.wait_s(ahead, self.slots) * (cost / ahead if ahead else 1.0)

    def _purge(self) -> None:
        kept = []
        for task in self._waiting:
            if task.generation.closed:
                metrics.CANCELLED.labels("waiting").inc()
            elif task.expired:
                metrics.REJECTED.labels(problems.TOO_LATE.slug).inc()
                task.generation.publish(too_late(task))
            else:
                kept.append(task)
        self._waiting = kept
