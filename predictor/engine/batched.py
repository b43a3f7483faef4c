"""An engine that computes its tasks in one running batch."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from contract.problems import ProblemError
from predictor.engine.admission_queue import Admission
from predictor.engine.base import Engine, shutting_down
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task
from predictor.errors import ModelError

if TYPE_CHECKING:  # the scheduler imports torch, and the port is open before that
    from predictor.engine.batch import Batch, Row, RowOutput


class EngineCore(ABC):
    """What an engine is once its model is loaded: admission, a batch, and the scheduler between them."""

    def __init__(self, batch: Batch, max_waiting: int) -> None:
        from predictor.engine.scheduler import Scheduler

        self.batch = batch
        self.admission = Admission(batch.slots, max_waiting)
        self.scheduler = Scheduler(batch, self.admission, self.make_row)

    @abstractmethod
    async def submit(self, task: Any) -> Generation:
        """As Engine.submit."""

    @abstractmethod
    def make_row(self, task: Any) -> tuple[Row, RowOutput]:
        """The row of a ScheduledTask that got a slot, and where its events go."""

    @abstractmethod
    async def warm_up(self) -> None:
        """Generate something short, so that no user waits for lazily built kernels and caches."""

    @property
    def max_scheduled(self) -> int:
        return self.admission.slots + self.admission.max_waiting

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any task."""
        held = len(self.batch) + self.admission.waiting + self.admission.running
        return held == 0 and not self.scheduler.snapshot().tasks

    def close(self) -> None:
        self.scheduler.close(shutting_down())


Core = TypeVar("Core", bound=EngineCore)


class BatchedEngine(Engine, Generic[Core]):
    """`load` makes the core; before that there is nothing to submit to."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._core: Core | None = None

    @abstractmethod
    def load_core(self, report: Callable[[str], None]) -> Core:
        """Load the model and measure its slots, as Engine.load does."""

    @property
    def core(self) -> Core:
        if self._core is None:
            raise RuntimeError("the engine is not loaded")
        return self._core

    def load(self, report: Callable[[str], None]) -> None:
        self._core = self.load_core(report)
        report("warming up")
        self._core.scheduler.start()
        try:
            asyncio.run(self._core.warm_up())
        except ProblemError as error:
            raise ModelError(f"{self.settings.model} cannot generate: {error}") from error

    async def submit(self, task: Task) -> Generation:
        return await self.core.submit(task)

    @property
    def max_scheduled(self) -> int | None:
        return self.core.max_scheduled

    @property
    def alive(self) -> bool:
        return self._core is not None and self._core.scheduler.alive

    @property
    def strained(self) -> bool:
        return self._core is not None and self._core.scheduler.strained

    def close(self) -> None:
        if self._core is not None:
            self._core.close()
