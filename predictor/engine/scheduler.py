"""The engine thread: takes jobs from admission into the batch, steps it, and lives through what goes wrong."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.engine.admission import Admission, ScheduledTask, too_late
from predictor.engine.events import End, PictureFinished, Started

log = logging.getLogger(__name__)

STALL_SECONDS = 120.0
"""A step that takes longer than this is taken for a stuck device."""

RECOVERY_STEPS = 64
"""Steps without running out of memory after which one more row is tried again."""

STRAIN_EVENTS = 3
STRAIN_SECONDS = 10.0
"""Running out of memory STRAIN_EVENTS times within this lowers the capacity, and readiness for as long."""

FAILURES = 3
"""Failed steps in a row, each with a single row, after which only a restart can help."""


class Row(Protocol):
    """A text or a picture in the batch; `so_far` says in words how far it has come."""

    @property
    def so_far(self) -> str: ...


class Batch(Protocol):
    """What is computed together. A step that raises may be tried again, with fewer rows."""

    capacity: int

    def __len__(self) -> int: ...

    @property
    def computing(self) -> Sequence[Row]:
        """The rows that the last step has brought forward."""

    def join(self, row: Any) -> None: ...

    def remove(self, row: Any) -> None: ...

    def step(self) -> Sequence[Row]:
        """Compute; the rows that are done by it."""

    def economize(self) -> bool:
        """Need less memory from now on, at the cost of speed; whether that was possible."""


class RowOutput(Protocol):
    """Tells the client of one row how it goes on."""

    def finish(self) -> End: ...


class Scheduler:
    """One thread and one batch. `begin` turns a job into a row and its author."""

    def __init__(self, batch: Batch, admission: Admission, begin: Callable[[Any], tuple[Row, RowOutput]]) -> None:
        self.capacity = batch.capacity
        self.allowed = batch.capacity  # rows at present: less than the capacity after running out of memory
        self._batch = batch
        self._admission = admission
        self._begin = begin
        self._served: dict[Row, tuple[ScheduledTask, RowOutput]] = {}
        self._displaced: list[Row] = []  # taken out of the batch by a failure; first to join again
        self._good_steps = 0
        self._failures = 0
        self._out_of_memory: list[float] = []
        self._strained_until = 0.0
        self._beat_at: float | None = None  # when the running batch last moved; None while there is none
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        admission = self._admission
        metrics.show(running=lambda: admission.served, waiting=lambda: admission.waiting, slots=lambda: admission.slots)
        self._thread.start()

    @property
    def alive(self) -> bool:
        beat_at = self._beat_at
        stalled = beat_at is not None and time.monotonic() - beat_at > STALL_SECONDS
        return self._thread.is_alive() and not stalled

    @property
    def strained(self) -> bool:
        """Whether memory ran out again and again a moment ago."""
        return time.monotonic() < self._strained_until

    def close(self, problem: ProblemError) -> None:
        """Stop at the next token; what waits and what runs ends with `problem`."""
        self._closing = True
        for job in self._admission.close(problem):
            job.generation.publish(problem)

    def _run(self) -> None:
        problem = ProblemError(problems.UNAVAILABLE, "The engine has died; only a restart helps.")
        try:
            while not self._closing:
                self._turn()
            problem = ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
        except BaseException:
            log.critical("the engine died", exc_info=True)
        finally:
            for job in self._admission.close(problem):
                job.generation.publish(problem)
            for job, _ in self._served.values():  # and the batch is left alone: a broken device raises at any touch
                self._admission.done(job, well=False)
                job.generation.publish(problem)
            self._served.clear()

    def _turn(self) -> None:
        """Let rows leave, let rows join, step once."""
        self._admission.sweep()
        for row, (job, _) in list(self._served.items()):
            if job.generation.closed:
                metrics.CANCELLED.labels("running").inc()
                self._end(row, None)
            elif job.expired:
                self._end(row, too_late(job))
        self._fill()
        if not len(self._batch):
            return
        self._beat_at = time.monotonic()
        failure: Exception | None = None
        out_of_memory = False
        try:
            finished = [(row, self._served[row][1].finish()) for row in self._batch.step()]
        except Exception as error:
            out_of_memory = _is_out_of_memory(error)
            failure = None if out_of_memory else error
        # Outside of the handler, and without the exception: it holds frames, and those hold tensors.
        if out_of_memory:
            self._make_room()
            return
        if failure is not None:
            self._fail(failure)
            return
        self._failures = 0
        self._grow()
        metrics.BATCH.observe(len(self._batch.computing))
        self._note_first_steps()
        for row, event in finished:
            self._end(row, event)

    def _fill(self) -> None:
        while len(self._batch) < self.allowed:
            if self._displaced:
                self._batch.join(self._displaced.pop(0))
                continue
            idle = not len(self._batch)
            if idle:
                self._beat_at = None
            job = self._admission.take(block=idle)
            if job is None:
                return
            try:
                row, author = self._begin(job)
            except Exception:
                log.exception("a request could not be begun")
                self._admission.done(job, well=False)
                job.generation.publish(_failed())
                continue
            self._served[row] = (job, author)
            metrics.QUEUE.observe(job.taken_at - job.accepted_at)
            job.generation.publish(Started(job.taken_at - job.accepted_at))
            self._batch.join(row)

    def _end(self, row: Row, event: End | ProblemError | None) -> None:
        """Take a row off the stove and tell its client, if there still is one."""
        job, _ = self._served.pop(row)
        if isinstance(event, End):
            _observe(job, event)
        # The place is free before the client knows, who may come back at once; and it knows whatever the device does.
        self._admission.done(job, well=isinstance(event, End))
        if event is not None:
            job.generation.publish(event)
        if row in self._displaced:
            self._displaced.remove(row)
        else:
            self._batch.remove(row)

    def _note_first_steps(self) -> None:
        now = time.monotonic()
        for row in self._batch.computing:
            job, _ = self._served[row]
            if job.first_step_at is None:
                job.first_step_at = now
                metrics.FIRST_TOKEN.observe(now - job.accepted_at)

    def _fail(self, failure: Exception) -> None:
        """A step failed, nobody knows why: the rows are tried one by one, and the one that fails alone is told so."""
        inside = self._inside()
        log.error("a step failed with %d running", len(inside), exc_info=failure)
        self._good_steps = 0
        if len(inside) > 1:
            for row in inside:
                self._set_aside(row)
            self.allowed = 1
            return
        self._failures += 1
        self._end(inside[0], _failed())
        if self._failures >= FAILURES:
            raise failure
        self.allowed = self.capacity  # it was this one: the others get their places back

    def _inside(self) -> list[Row]:
        """The rows in the batch, those that were taken first in front."""
        return [row for row in self._served if row not in self._displaced]

    def _set_aside(self, row: Row) -> None:
        """Out of the batch, to join it again before anybody else."""
        self._batch.remove(row)
        self._displaced.append(row)

    def _make_room(self) -> None:
        """Out of memory: the youngest row leaves and joins again later; a lone one cannot be helped."""
        self._good_steps = 0
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        now = time.monotonic()
        self._out_of_memory = [at for at in self._out_of_memory if now - at < STRAIN_SECONDS] + [now]
        metrics.OUT_OF_MEMORY.inc()
        rows = len(self._batch)
        youngest = max(self._inside(), key=lambda row: self._served[row][0].taken_at)
        log.warning("out of memory with %d running; the youngest: %s so far", rows, youngest.so_far)
        if rows == 1:
            if self._batch.economize():
                log.warning("the batch makes do with less memory from now on")
                return
            detail = f"The device has no memory for this request, even alone: {youngest.so_far} so far."
            self._end(youngest, ProblemError(problems.OUT_OF_MEMORY, detail))
            self._set_capacity(self._batch.capacity)  # it was this one all along: the others get their places back
            return
        self._set_aside(youngest)
        self.allowed = rows - 1
        if len(self._out_of_memory) >= STRAIN_EVENTS:
            self._set_capacity(self.allowed)
            self._strained_until = now + STRAIN_SECONDS
            log.error("out of memory again and again: the capacity is lowered to %d", self.capacity)

    def _set_capacity(self, rows: int) -> None:
        self.capacity = self.allowed = self._admission.slots = rows

    def _grow(self) -> None:
        """After a while without trouble, try one row more than memory had for."""
        self._good_steps += 1
        if self._good_steps >= RECOVERY_STEPS and self.allowed < self.capacity:
            self._good_steps = 0
            self.allowed += 1


def _observe(job: ScheduledTask, end: End) -> None:
    """Count a text or a picture that ended well."""
    now = time.monotonic()
    metrics.WHOLE.observe(now - job.accepted_at)
    if isinstance(end, PictureFinished):
        metrics.STEPS.inc(end.steps)
        metrics.FINISHED.labels("stop").inc()
        return
    if job.first_step_at is not None and end.completion_tokens > 1:
        metrics.PER_TOKEN.observe((now - job.first_step_at) / (end.completion_tokens - 1))
    metrics.PROMPT_TOKENS.inc(end.prompt_tokens)
    metrics.GENERATION_TOKENS.inc(end.completion_tokens)
    metrics.FINISHED.labels(end.finish_reason).inc()


def _failed() -> ProblemError:
    return ProblemError(problems.INTERNAL, "The model failed on this request; the server's log says why.")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_WORDS)


_ALLOCATOR_WORDS = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""How torch's CPU allocator and CUDA's libraries say it, in a plain RuntimeError."""
