"""An engine that computes its tasks in one running batch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from contract import problems
from contract.models.description import NOT_DESCRIBED, ModelDescription
from contract.problems import ProblemError
from predictor.cpu.threads import adopt_threads
from predictor.engine.base import Engine, SleepLevel
from predictor.engine.engine_core import EngineCore
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.generation import Generation
from predictor.engine.sleep.returned_memory import MemoryReturn
from predictor.engine.tasks import Task
from predictor.errors import ModelError, first_line

if TYPE_CHECKING:  # the scheduler imports torch, and the port is open before that
    import torch

    from predictor.engine.sleep.host_weights import HostWeights

log = logging.getLogger(__name__)

LOAD_ATTEMPTS = 3

RETRY_SECONDS = 2.0
"""Pause before the next attempt at least: a process that ends gives its memory back in its own time."""

CLOSE_SECONDS = 10.0
"""How long the thread of an attempt that failed may take to end."""


@dataclass(frozen=True)
class _Told:
    """What a core says while it sleeps."""

    fingerprint: str | None = None
    max_scheduled: int | None = None
    description: ModelDescription = NOT_DESCRIBED


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
        self._told = _Told()

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
            from predictor.engine.memory.memory_pressure import free_cached_memory, wait_for_memory

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
            from predictor.engine.memory.memory_pressure import device_failure

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
        self._told = _Told(core.fingerprint, core.max_scheduled, core.description)
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
            from predictor.engine.memory.memory_pressure import free_cached_memory, is_said_by_device

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
        return (self._core or self._told).fingerprint

    @property
    def description(self) -> ModelDescription:
        return (self._core or self._told).description

    @property
    def max_scheduled(self) -> int | None:
        return (self._core or self._told).max_scheduled

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
