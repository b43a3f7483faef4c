"""What an engine is once its model is loaded."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from contract.models.description import ModelDescription
from contract.problems import ProblemError
from predictor import systemd
from predictor.engine.admission_queue import Admission
from predictor.engine.base import put_to_sleep, shutting_down
from predictor.engine.generation import Generation
from predictor.errors import ModelError

if TYPE_CHECKING:  # the scheduler imports torch, and the port is open before that
    import torch

    from predictor.engine.batch import Batch, Row, RowOutput

log = logging.getLogger(__name__)

PROBE_STEPS = 8


class EngineCore(ABC):
    """Admission, a batch, and the scheduler between them."""

    def __init__(self, batch: Batch, max_waiting: int) -> None:
        from predictor.engine.scheduler import Scheduler

        self.batch = batch
        self.admission = Admission(batch.slots, max_waiting)
        self.scheduler = Scheduler(batch, self.admission, self.make_row, self.works)
        systemd.notify_slots(batch.slots)

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
    def description(self) -> ModelDescription:
        """As Engine.description."""

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
