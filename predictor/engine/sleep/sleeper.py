"""When an engine sleeps and wakes: on request, after a time without requests, and for the next task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.engine.base import Engine, SleepLevel, shutting_down
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task
from predictor.errors import first_line

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
"""Between two looks whether the engine has nothing to do."""

NAP_POLL_SECONDS = 0.1
"""Between two looks whether it is time for a nap."""

BUSY_SECONDS = 30.0
"""How long a request to sleep waits for what runs."""

RETRY_SECONDS = 5.0
"""The Retry-After of an answer after a wake-up that failed, and the pause after a nap that could not begin."""


class Sleeper:
    """Stands between the tasks and their engine, on one event loop.

    While the engine is not whole no task reaches it: those that come are held, wake it, and are submitted when it is
    awake, each within its own time. At most as many are held as the engine has places. `level` is the one where
    nobody says which; None is the engine's own.
    """

    def __init__(self, engine: Engine, level: SleepLevel | None = None) -> None:
        self._engine = engine
        self._level = level
        self.holds = False
        """Whether tasks are held: from the moment that it falls asleep until it is awake."""

        self._held = 0
        self._submitting = 0
        self._busy_at = time.monotonic()
        self._change = asyncio.Lock()
        self._waking: asyncio.Task[ProblemError | None] | None = None
        self._work: asyncio.Future[None] | None = None  # on the engine, in a thread
        metrics.show_sleep(lambda: engine.sleeping)

    @property
    def sleeping(self) -> SleepLevel | None:
        """The level at which the engine sleeps; None while it is awake, or still falls asleep."""
        return self._engine.sleeping

    @property
    def idle_s(self) -> float:
        """Seconds since a task was seen last."""
        if self._held or self._submitting or not self._engine.idle:
            self._busy_at = time.monotonic()
        return time.monotonic() - self._busy_at

    async def submit(self, task: Task) -> Generation:
        """As Engine.submit, after waking the engine where it sleeps. Raises a ProblemError, too, when it cannot be
        woken, or not within the task's time."""
        while self.holds:
            begun = time.monotonic()
            await self._hold(task.seconds)
            if task.seconds is not None:
                task = replace(task, seconds=task.seconds - (time.monotonic() - begun))
        self._submitting += 1
        try:
            return await self._engine.submit(task)
        finally:
            self._submitting -= 1
            self._busy_at = time.monotonic()

    async def sleep(
        self, level: SleepLevel | None = None, *, abort: bool = False, busy_seconds: float | None = None
    ) -> None:
        """Sleep at `level`, or deeper where it does already. What runs and waits is finished before; with `abort` it
        ends with a problem. Raises a ProblemError when that takes longer than `busy_seconds`, by default BUSY_SECONDS,
        or when the engine cannot sleep.

        A task that comes meanwhile wakes it again. To cancel the wait changes nothing.
        """
        longest = BUSY_SECONDS if busy_seconds is None else busy_seconds
        await asyncio.shield(asyncio.create_task(self._sleep(level, abort, longest)))

    async def wake_up(self) -> None:
        """Be awake. Raises a ProblemError when that fails. Several calls at once wake it once."""
        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(self._wake())
        problem = await asyncio.shield(self._waking)
        if problem is not None:
            raise ProblemError(problem.kind, str(problem), retry_after=problem.problem.retry_after)

    async def nap(self, seconds: float, ready: Callable[[], bool]) -> None:
        """Sleep each time that no task was there for so many seconds, for as long as this is awaited. Only while it is
        `ready`."""
        while True:
            await asyncio.sleep(min(NAP_POLL_SECONDS, seconds))
            if not ready():  # a load that takes longer is no idleness
                self._busy_at = time.monotonic()
            if self.holds or self.idle_s < seconds or not self._engine.alive:
                continue
            try:
                # A task that has come since then is not to wait until all others are finished.
                await self.sleep(busy_seconds=0.0)
            except ProblemError as error:
                if error.kind is problems.OVERLOADED:
                    continue
                log.error("no nap: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """Do not wait for the engine any longer: what is held ends with a problem."""
        if self._work is not None and not self._work.done():
            self._work.set_exception(shutting_down())

    async def _hold(self, seconds: float | None) -> None:
        """Until it is awake, and no longer than so many seconds."""
        most = self._engine.max_scheduled
        if most is not None and self._held >= most:
            metrics.REJECTED.labels(problems.OVERLOADED.slug).inc()
            detail = f"{self._held} requests wait for the model to wake up; no more are taken."
            raise ProblemError(problems.OVERLOADED, detail, retry_after=RETRY_SECONDS)
        self._held += 1
        try:
            async with asyncio.timeout(seconds):
                await self.wake_up()
        except TimeoutError:
            metrics.REJECTED.labels(problems.TOO_LATE.slug).inc()
            raise ProblemError(problems.TOO_LATE, "The request's time was over while the model woke up.") from None
        finally:
            self._held -= 1

    async def _sleep(self, level: SleepLevel | None, abort: bool, busy_seconds: float) -> None:
        async with self._change:
            engine, before = self._engine, self._engine.sleeping
            if before is not None and (level is None or level <= before):
                return
            if before is None and not engine.alive:  # asleep it would look alive
                raise ProblemError(problems.UNAVAILABLE, "The engine makes no progress; only a restart helps.")
            chosen = level or self._level or engine.usual_sleep_level
            begun = time.monotonic()
            self.holds = True
            try:
                await self._until_idle(abort, busy_seconds)
                await self._in_thread(lambda: engine.sleep(chosen))
            except ProblemError:
                raise
            except Exception as error:
                detail = "The model cannot sleep; the server's log says why."
                log.error("cannot sleep: %s", first_line(error))
                raise ProblemError(problems.UNAVAILABLE, detail, retry_after=RETRY_SECONDS) from None
            finally:
                self.holds = engine.sleeping is not None
                self._busy_at = time.monotonic()
            log.info("asleep at level %d after %.2f s", chosen, time.monotonic() - begun)

    async def _until_idle(self, abort: bool, busy_seconds: float) -> None:
        begun = time.monotonic()
        while self._submitting or not (abort or self._engine.idle):
            if time.monotonic() - begun >= busy_seconds:
                detail = f"Requests still run after {busy_seconds:g} s; mode=abort would end them."
                raise ProblemError(problems.OVERLOADED, detail, retry_after=RETRY_SECONDS)
            await asyncio.sleep(POLL_SECONDS)

    async def _wake(self) -> ProblemError | None:
        """What went wrong; None when it is awake."""
        async with self._change:
            level, begun = self._engine.sleeping, time.monotonic()
            if level is None:
                return None
            try:
                await self._in_thread(self._engine.wake_up)
            except ProblemError as error:
                return error
            except Exception as error:
                metrics.FAILED_WAKE_UPS.inc()
                log.error("%s", first_line(error))
                detail = "The model could not be woken; the server's log says why."
                return ProblemError(problems.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
            self.holds = False
            self._busy_at = time.monotonic()
            metrics.WAKE_UP.labels(str(level)).observe(time.monotonic() - begun)
            log.info("awake from level %d after %.2f s", level, time.monotonic() - begun)
            return None

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Not one of asyncio's threads: the end of the process would wait for it."""
        loop = asyncio.get_running_loop()
        future = self._work = loop.create_future()

        def finish(error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def run() -> None:
            failure: Exception | None = None
            try:
                work()
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish, failure)

        threading.Thread(target=run, name="sleep", daemon=True).start()
        await future
