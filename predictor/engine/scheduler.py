"""The engine thread: moves tasks from admission into the batch, steps it, and survives what goes wrong."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.cpu.threads import adopt_threads
from predictor.engine.admission_queue import Admission
from predictor.engine.batch import Batch, MakeRow, Row, RowOutput
from predictor.engine.events import End, Started
from predictor.engine.failure_search import FailureSearch
from predictor.engine.memory.memory_pressure import MemoryPressure, free_cached_memory, is_out_of_memory
from predictor.engine.scheduled_task import ScheduledTask, SchedulerSnapshot, model_failed, observe_end, too_late

log = logging.getLogger(__name__)

STALL_SECONDS = 120.0
"""A step, or a part of it between two heartbeats, that takes longer than this counts as a stuck device."""

FAILURES = 3
"""Failed steps in a row, each with a single row, after which the engine itself is in doubt."""


class Scheduler:
    """One thread that steps one batch. `make_row` turns a task that got a slot into its row and the row's output;
    `works` tries the empty batch."""

    def __init__(self, batch: Batch, admission: Admission, make_row: MakeRow, works: Callable[[], bool]) -> None:
        self._batch = batch
        self._admission = admission
        self._make_row = make_row
        self._works = works
        self._memory = MemoryPressure(batch.slots)
        self._search = FailureSearch()
        self._running: dict[Row, tuple[ScheduledTask, RowOutput]] = {}
        self._displaced: list[Row] = []
        self._failures = 0
        self._beaten_at: float | None = None  # the last sign of life; None while the thread waits for a task
        batch.heartbeat = self._beat
        self._closing: ProblemError | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        admission = self._admission
        metrics.show(
            running=lambda: admission.running, waiting=lambda: admission.waiting, slots=lambda: admission.slots
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs and the device is not stuck."""
        beaten_at = self._beaten_at
        stalled = beaten_at is not None and time.monotonic() - beaten_at > STALL_SECONDS
        return self._thread.is_alive() and not stalled

    @property
    def strained(self) -> bool:
        """Whether memory ran out again and again a moment ago."""
        return self._memory.strained

    def snapshot(self) -> SchedulerSnapshot:
        """From any thread."""
        return SchedulerSnapshot(
            tasks=tuple(task for task, _ in tuple(self._running.values())),
            displaced=len(self._displaced),
            slots=self._memory.slots,
            usable_slots=self._memory.usable_slots,
            idle=self._beaten_at is None,
        )

    def close(self, problem: ProblemError) -> None:
        """Stop after the current step; all tasks, running and waiting, end with `problem`."""
        self._closing = problem
        for task in self._admission.close(problem):
            task.generation.publish(problem)

    def join(self, seconds: float) -> bool:
        """After `close`: wait for the thread to end. Whether it has, or was never started."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        problem = ProblemError(problems.UNAVAILABLE, "The engine has died; only a restart helps.")
        try:
            adopt_threads()
            while self._closing is None:
                self._advance()
            problem = self._closing
        except BaseException:
            log.critical("the engine died", exc_info=True)
        finally:
            for task in self._admission.close(problem):
                task.generation.publish(problem)
            for task, _ in self._running.values():
                self._admission.release(task, completed=False)
                task.generation.publish(problem)
            self._running.clear()
            with contextlib.suppress(Exception):  # a broken device raises at any touch
                for row in self._displaced:
                    self._batch.remove(row)
                self._batch.close()

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()

    def _advance(self) -> None:
        """Let rows leave, let rows join, step once."""
        self._admission.purge()
        for row, (task, _) in list(self._running.items()):
            if task.generation.closed:
                metrics.CANCELLED.labels("running").inc()
                self._end(row, None)
            elif task.expired:
                self._end(row, too_late(task))
        self._fill()
        if not len(self._batch):
            return
        self._beat()
        count = len(self._batch)
        all_computing = len(self._batch.computing) == count
        ended: Sequence[Row] = ()
        failure: Exception | None = None
        out_of_memory = False
        try:
            ended = self._batch.step()
        except Exception as error:
            out_of_memory = is_out_of_memory(error)
            failure = None if out_of_memory else error
        # Handled outside of `except`, without the exception: it holds frames, and those hold tensors.
        if out_of_memory:
            self._free_memory(count)
            return
        if failure is not None:
            self._search_failure(failure)
            return
        self._failures = 0
        self._memory.note_good_step()
        self._admission.slots = self._memory.slots
        metrics.BATCH.observe(len(self._batch.computing))
        self._note_first_steps()
        if self._search.active and all_computing:
            self._widen_search()
        for row in ended:
            self._finish(row, count)

    # Rows join and leave

    def _fill(self) -> None:
        while self._search.active:  # nobody else joins while it goes on
            if len(self._batch):
                return
            self._widen_search()  # those that were tried have left
        was_empty = not len(self._batch)
        self._join_waiting()
        if was_empty and 0 < len(self._batch) < self._memory.usable_slots:
            time.sleep(self._batch.gather_seconds)
            self._admission.wait_for_arriving()
            self._join_waiting()

    def _join_waiting(self) -> None:
        """Fill the usable slots: rows that were displaced first, then new tasks. An empty batch waits for one."""
        while len(self._batch) < self._memory.usable_slots:
            if self._displaced:
                self._batch.join(self._displaced.pop(0))
                continue
            empty = not len(self._batch)
            if empty:
                self._beaten_at = None
            task = self._admission.next_task(block=empty)
            if task is None:
                return
            try:
                row, output = self._make_row(task)
            except Exception:
                log.exception("a request could not be begun")
                self._admission.release(task, completed=False)
                task.generation.publish(model_failed())
                continue
            self._running[row] = (task, output)
            metrics.QUEUE.observe(task.queue_s)
            task.generation.publish(Started(task.queue_s))
            self._batch.join(row)

    def _finish(self, row: Row, count: int) -> None:
        """End a row that is finished, or that has failed by itself, in a step of `count` rows."""
        failure, row.failure = row.failure, None
        if failure is not None and is_out_of_memory(failure):
            failure = None  # it holds frames, and those hold tensors
            self._free_memory(count, cause=row)
            return
        if failure is None:
            try:
                event = self._running[row][1].finish()
            except Exception as error:
                failure = error
            else:
                self._end(row, event)
                return
        self._end(row, model_failed(failure, row.so_far))

    def _end(self, row: Row, event: End | ProblemError | None) -> None:
        """Remove a row and publish its end, unless its client has left."""
        task, _ = self._running.pop(row)
        if isinstance(event, End):
            observe_end(task, event)
        # First the slot is free, because the client may come back at once; then the client is told, whatever the device
        # does when the row is removed.
        self._admission.release(task, completed=isinstance(event, End))
        if event is not None:
            task.generation.publish(event)
        self._search.forget(row)
        if row in self._displaced:
            self._displaced.remove(row)
        self._batch.remove(row)

    def _displace(self, row: Row) -> None:
        """Take a row out of the batch; it joins again before any new one."""
        self._batch.suspend(row)
        self._displaced.append(row)

    def _rows_in_batch(self) -> list[Row]:
        """Oldest first."""
        return [row for row in self._running if row not in self._displaced]

    def _note_first_steps(self) -> None:
        now = time.monotonic()
        for row in self._batch.computing:
            task, _ = self._running[row]
            if task.first_step_at is None:
                task.first_step_at = now
                metrics.FIRST_TOKEN.observe(now - task.accepted_at)

    # What goes wrong

    def _search_failure(self, failure: Exception) -> None:
        """A step failed for an unknown reason: look for the row that fails alone, and end it."""
        rows = self._rows_in_batch()
        if self._search.active:
            log.error("a step failed again with %d running: %s", len(rows), failure)
        else:
            log.error("a step failed with %d running", len(rows), exc_info=failure)
        if len(rows) > 1:
            for row in self._search.narrow(rows):
                self._displace(row)
            return
        self._failures += 1
        self._search.clear()
        log.error("a request failed alone, at %s", rows[0].so_far)
        self._end(rows[0], model_failed())
        if self._failures >= FAILURES:  # of the requests, or of the engine, which only a restart helps then
            if not self._works():
                raise failure
            self._failures = 0

    def _widen_search(self) -> None:
        """Those in the batch have passed: the next ones join them, all who are left once none is suspected."""
        for row in self._search.widen():
            self._displaced.remove(row)
            self._batch.join(row)
        if not self._search.active and self._search.failed_together:
            self._memory.restrict(self._search.failed_together - 1)
            self._search.clear()

    def _free_memory(self, count: int, cause: Row | None = None) -> None:
        """A step of `count` rows ran out of memory, in what they share or in the own work of `cause`. One that is alone
        needs a batch that uses less, or ends. Else the youngest is displaced, or the cause is tried alone."""
        free_cached_memory()
        metrics.OUT_OF_MEMORY.inc()
        row = cause or max(self._rows_in_batch(), key=lambda row: self._running[row][0].started_at)
        whose = "the youngest" if cause is None else "in the work of one"
        log.warning("out of memory with %d running; %s: %s so far", count, whose, row.so_far)
        if count == 1:
            self._help_lone_row(row)
        elif cause is None:
            self._displace(row)
            if self._memory.note_out_of_memory(count):
                self._admission.slots = self._memory.slots
                log.error("out of memory again and again: the capacity is lowered to %d", self._memory.slots)
        elif row not in self._displaced:  # where another one of the same step is
            for other in self._search.isolate(row, self._rows_in_batch()):
                self._displace(other)

    def _help_lone_row(self, row: Row) -> None:
        if self._batch.reduce_memory():
            log.warning("the batch makes do with less memory from now on")
            return
        detail = f"The device has no memory for this request, even alone: {row.so_far} so far."
        self._end(row, ProblemError(problems.OUT_OF_MEMORY, detail))
        self._memory.reset()  # this row was the cause, so the others get their slots back
        self._admission.slots = self._memory.slots
