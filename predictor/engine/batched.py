"""An engine whose work is done in a running batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictor.engine.admission import Admission
from predictor.engine.base import Engine, shutting_down

if TYPE_CHECKING:  # it imports torch, and the port is open before that
    from predictor.engine.scheduler import Scheduler


class BatchedEngine(Engine):
    """An engine whose work is done by a Scheduler, with what its Admission lets in; `load` makes both."""

    _cook: Scheduler
    _admission: Admission

    @property
    def places(self) -> int:
        return self._admission.slots + self._admission.depth

    @property
    def alive(self) -> bool:
        return hasattr(self, "_cook") and self._cook.alive

    @property
    def strained(self) -> bool:
        return self._cook.strained

    def close(self) -> None:
        if hasattr(self, "_cook"):
            self._cook.close(shutting_down())
