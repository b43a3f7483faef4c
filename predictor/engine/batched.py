"""An engine that computes its tasks in one running batch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from contract import problems
from contract.problems import ProblemError
from predictor.cpu.threads import adopt_threads
from predictor.engine.admission_queue import Admission
from predictor.engine.base import Engine, SleepLevel, put_to_sleep, shutting_down
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.generation import Generation
from predictor.engine.sleep.returned_memory import MemoryReturn
from predictor.engine.tasks import Task
from predictor.errors import ModelError, first_line

if TYPE_CHECKING:  # the scheduler imports torch, and the port is open before that
    import torch

    from predictor.engine.batch import Batch, Row, RowOutput
    from predictor.engine.sleep.host_weights import HostWeights

log = logging.getLogger(__name__)

LOAD_ATTEMPTS = 3

RETRY_SECONDS = 2.0
"""Pause before the next attempt at least: a process that ends gives its memory back in its own time."""

PROBE_STEPS = 8

CLOSE_SECONDS = 10.0
"""How long the thread of an attempt that failed may take to end."""


class EngineCore(ABC):
    """What an engine is once its model is loaded: admission, a batch, and the scheduler between them."""

    def __init__(self, batch: Batch, max_waiting: int) -> None:
        from predictor.engine.scheduler import Scheduler

        self.batch = batch
        self.admission = Admission(batch.slots, max_waiting)
        self.scheduler = Scheduler(batch, self.admission, self.make_row, self.works)

    @abstractmethod
    async def submit(self, task: Any) -> Generation:
        """As Engine.submit."""

    @abstractmethod
    def make_row(self, task: Any) -> tuple[Row, RowOutput]:
        """The row of a ScheduledTask that got a slot, and where its events go."""

    @abstractmethod
    def make_probe(self) -> Row:
        """A row that any working batch ends within PROBE_STEPS steps, and of which nobody is told."""

    def works(self) -> bool:
        """Whether the batch, which is empty, still computes something simple. On the scheduler's thread."""
        row = self.make_probe()
        self.batch.join(row)
        try:
            ended = any(row in self.batch.step() for _ in range(PROBE_STEPS))
        except Exception as error:
            log.error("a probe fails, too: %s", error)
            return False
        finally:
            self.batch.remove(row)
        return ended and row.failure is None

    @abstractmethod
    async def warm_up(self) -> None:
        """Generate something short, so that no user waits for lazily built kernels and caches."""

    @cached_property
    @abstractmethod
    def fingerprint(self) -> str:
        """As Engine.fingerprint."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def max_scheduled(self) -> int:
        return self.admission.slots + self.admission.max_waiting

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any task."""
        held = len(self.batch) + self.admission.waiting + self.admission.running
        return held == 0 and not self.scheduler.snapshot().tasks

    def close(self, problem: ProblemError | None = None) -> None:
        self.scheduler.close(problem or shutting_down())

    def end(self) -> None:
        """`close` to sleep, and wait for the end of the thread. Raises ModelError where the device is stuck."""
        self.close(put_to_sleep())
        while not self.scheduler.join(1.0):
            if not self.scheduler.alive:
                raise ModelError("the device is stuck in a step; only a restart helps")


Core = TypeVar("Core", bound=EngineCore)


class BatchedEngine(Engine, Generic[Core]):
    """`load` makes the core; before that there is nothing to submit to."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._core: Core | None = None
        self._closed = False
        self._host: HostWeights | None = None
        self._memory = MemoryReturn()
        self._sleeping: SleepLevel | None = None
        self._falls_asleep = self._broken = False
        # Of the core before, while it sleeps.
        self._restore: Callable[[], Core] | None = None
        self._models: Sequence[torch.nn.Module] = ()
        self._fingerprint: str | None = None
        self._max_scheduled: int | None = None

    @abstractmethod
    def load_core(self, report: Callable[[str], None]) -> Core:
        """Load the model and measure its slots, as Engine.load does."""

    @abstractmethod
    def again(self, core: Core) -> tuple[Sequence[torch.nn.Module], Callable[[], Core]]:
        """What has the weights of a core, and what makes another core of them, of which it keeps nothing else."""

    @property
    def core(self) -> Core:
        if self._core is None:
            raise RuntimeError("the engine is not loaded")
        return self._core

    def load(self, report: Callable[[str], None]) -> None:
        """As Engine.load. A device that fails is tried again: its memory may still have been in use."""
        for attempt in range(1, LOAD_ATTEMPTS + 1):
            failure = self._try_to_load(report)
            if failure is None:
                return
            log.warning("attempt %d of %d to load %s: %s", attempt, LOAD_ATTEMPTS, self.settings.model, failure)
            # Outside of `except`, without the exception: it holds frames, and those hold the model.
            from predictor.engine.memory_pressure import free_cached_memory, wait_for_memory

            with contextlib.suppress(RuntimeError):  # a broken device raises at any touch
                free_cached_memory()
                if attempt < LOAD_ATTEMPTS:
                    report("waiting for the device")
                    time.sleep(RETRY_SECONDS)
                    wait_for_memory(self.settings.memory)
        raise ModelError(
            f"cannot load {self.settings.model}: the device failed {LOAD_ATTEMPTS} times, the last time with: {failure}"
        )

    def _try_to_load(self, report: Callable[[str], None]) -> str | None:
        """What the device said if it failed; None when all is ready."""
        try:
            self._core = self.load_core(report)
            report("warming up")
            self._core.scheduler.start()
            asyncio.run(self._core.warm_up())
            log.info("system fingerprint %s", self._core.fingerprint)
        except ProblemError as error:
            if error.kind is not problems.OUT_OF_MEMORY:
                raise ModelError(f"{self.settings.model} cannot generate: {error}") from error
            failure = str(error)
        except Exception as error:
            from predictor.engine.memory_pressure import device_failure

            said = device_failure(error)
            if said is None:
                raise
            failure = said
        else:
            return None
        core, self._core = self._core, None
        if core is not None:
            core.close()
            core.scheduler.join(CLOSE_SECONDS)
        return failure

    async def submit(self, task: Task) -> Generation:
        return await self.core.submit(task)

    def sleep(self, level: SleepLevel) -> None:
        if self._sleeping is not None and level <= self._sleeping:
            return
        self._falls_asleep = True
        try:
            if self._sleeping is None:
                self._fall_asleep(level)
            else:
                self._restore, self._host, self._models = None, None, ()
            self._memory.give_back(level)
            self._sleeping = level
        finally:
            self._falls_asleep = False

    def _fall_asleep(self, level: SleepLevel) -> None:
        core = self.core
        self._fingerprint, self._max_scheduled = core.fingerprint, core.max_scheduled
        core.end()
        if level == 2:
            self._core = self._host = None
            return
        from predictor.engine.sleep.host_weights import HostWeights  # imports torch

        (self._models, again), self._core = self.again(core), None
        self._host = self._host or HostWeights()
        try:
            self._host.offload(self._models)
        except Exception:
            self._start(again)
            raise
        self._restore = again

    def wake_up(self) -> None:
        if self._sleeping is None:
            return
        failure: str | None = None
        try:
            if self._restore is not None and self._host is not None:
                self._host.restore()
                self._start(self._restore)
            else:
                self.load(lambda phase: log.info("waking: %s", phase))
        except Exception as error:
            log.debug("waking failed", exc_info=True)
            failure = f"cannot wake {self.settings.model}: {first_line(error)}"
        # Outside of `except`, without the exception: it holds frames, and those hold the model.
        if failure is not None:
            from predictor.engine.memory_pressure import free_cached_memory, is_said_by_device

            self._broken = is_said_by_device(failure)
            with contextlib.suppress(RuntimeError):  # a broken device raises at any touch
                if self._host is not None:
                    self._host.offload(self._models)  # asleep it takes nothing there
                free_cached_memory()
            raise ModelError(failure)
        self._sleeping, self._restore, self._models = None, None, ()
        if self._closed:
            self.close()

    def _start(self, make: Callable[[], Core]) -> None:
        """Without a warm-up: nothing was built lazily that is not there any more."""
        adopt_threads()  # the fingerprint tells how many
        core = make()
        core.scheduler.start()
        log.info("system fingerprint %s", core.fingerprint)
        self._core = core

    @property
    def idle(self) -> bool:
        return self._core is None or self._core.idle

    @property
    def sleeping(self) -> SleepLevel | None:
        return self._sleeping

    @property
    def usual_sleep_level(self) -> SleepLevel:
        """A CPU has no device to free: only to drop the weights gives back their memory."""
        return 2 if self.core.device.type == "cpu" else 1

    @property
    def fingerprint(self) -> str | None:
        return self._fingerprint if self._core is None else self._core.fingerprint

    @property
    def max_scheduled(self) -> int | None:
        return self._max_scheduled if self._core is None else self._core.max_scheduled

    @property
    def alive(self) -> bool:
        """Asleep it waits to be woken, also after a wake-up that failed, unless a broken device was why."""
        if self._sleeping is not None or self._falls_asleep:
            return not self._broken
        return self._core is not None and self._core.scheduler.alive

    @property
    def strained(self) -> bool:
        return self._core is not None and self._core.scheduler.strained

    def close(self) -> None:
        self._closed = True
        if self._core is not None:
            self._core.close()
