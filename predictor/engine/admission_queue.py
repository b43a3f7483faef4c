"""The bounded queue in front of the slots, and which task is next."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.engine.scheduled_task import ScheduledTask, too_late
from wire.concurrency.fair_queue import FairQueue

_TURNS: tuple[Callable[[ScheduledTask], float], ...] = (
    lambda task: task.work,
    lambda task: -task.work,
    lambda task: task.accepted_at,
)
"""Free slots go in turn to the callers, and those of each in turn to its shortest task, so that it does not wait behind
long ones; to the longest, so that it does not run alone at the end; and to the oldest, so that none waits for ever."""


ARRIVING_SECONDS = 0.02
"""How long the first of a burst waits at most for those that are being made ready: to begin alone would keep them
waiting for longer."""


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
        self._waiting = FairQueue[str, ScheduledTask]()
        self._arriving = 0
        self._running = 0
        self._running_cost = 0.0
        self._turns: dict[str, int] = {}  # of callers that wait
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
        return self._wait_s(list(self._waiting))

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Meanwhile a task is made ready to be admitted, such as by encoding its prompt."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify()

    def wait_for_arriving(self) -> None:
        """Wait until no task is on its way, or as many wait as there are slots; ARRIVING_SECONDS at most."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._arriving or len(self._waiting) >= self.slots or self._closed, ARRIVING_SECONDS
            )

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
            self._check_time(task)
            if len(self._waiting) + self._running >= self.slots + self.max_waiting:
                self._make_room(task.caller)
            self._waiting.put(task.caller, task, task.work)
            self._changed.notify()

    def _check_time(self, task: ScheduledTask) -> None:
        if task.deadline is None or len(self._waiting) + self._running < self.slots:
            return
        self._waiting.put(task.caller, task, task.work)
        ahead = list(itertools.takewhile(lambda other: other is not task, self._waiting))
        self._waiting.remove(task.caller, task)
        expected = self._wait_s(ahead) + self.service_time.generation_s * task.cost
        left = task.deadline - time.monotonic()
        if expected > left:
            raise ProblemError(
                problems.OVERLOADED,
                f"This would take about {expected:.1f} s; the request gives it {max(0.0, left):.1f} s.",
                retry_after=self._wait_s(ahead),
            )

    def _make_room(self, caller: str) -> None:
        """Of the caller with most tasks that wait, the one that came last is refused: which may be the one to come."""
        refusal = ProblemError(
            problems.OVERLOADED,
            f"{self._running} requests are running and {len(self._waiting)} are waiting; no more are taken.",
            retry_after=self.retry_after,
        )
        last = self._waiting.make_room(caller)
        if last is None:
            raise refusal
        metrics.REJECTED.labels(problems.OVERLOADED.slug).inc()
        last.generation.publish(refusal)

    def next_task(self, *, block: bool) -> ScheduledTask | None:
        """Give the next task a slot. None when no task waits; with `block` that is only after `close`."""
        with self._changed:
            while True:
                self._purge()
                if (caller := self._waiting.next_key()) is not None:
                    turn = self._turns.pop(caller, 0)
                    task = self._waiting.take(caller, min(self._waiting.items(caller), key=_TURNS[turn]))
                    if self._waiting.items(caller):
                        self._turns[caller] = (turn + 1) % len(_TURNS)
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
            left, self._waiting = list(self._waiting), FairQueue()
            self._changed.notify_all()
            return left

    def _wait_s(self, ahead: list[ScheduledTask]) -> float:
        """Seconds until a slot is free when these wait before, weighted by what they and the running ones cost."""
        count = len(ahead) + self._running
        cost = self._running_cost + sum(task.cost for task in ahead)
        return self.service_time.wait_s(count, self.slots) * (cost / count if count else 1.0)

    def _purge(self) -> None:
        for task in list(self._waiting):
            if not (task.generation.closed or task.expired):
                continue
            self._waiting.remove(task.caller, task)
            if not self._waiting.items(task.caller):
                self._turns.pop(task.caller, None)
            if task.generation.closed:
                metrics.CANCELLED.labels("waiting").inc()
            else:
                metrics.REJECTED.labels(problems.TOO_LATE.slug).inc()
                task.generation.publish(too_late(task))
