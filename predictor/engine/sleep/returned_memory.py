"""Memory of what a sleeping engine has dropped: whoever still keeps it for the process gives it back."""

from __future__ import annotations

import gc

from predictor.engine.base import SleepLevel
from predictor.system_calls import return_free_memory


class MemoryReturn:
    """For one engine. What was there when its start ended is frozen (predictor.loading.startup): Python's collector
    does not see it, and models and batches are circles, which only that ends. So they are thawed when they are dropped
    for the first time; what a wake-up makes is never frozen."""

    def __init__(self) -> None:
        self._core_frozen = self._model_frozen = True

    def give_back(self, level: SleepLevel) -> None:
        """Collect what was dropped to sleep at `level`, and give its memory to the device and to the system."""
        from predictor.engine.memory.memory_pressure import free_cached_memory  # imports torch

        thaws = gc.get_freeze_count() > 0 and (self._core_frozen or (level == 2 and self._model_frozen))
        if thaws:
            gc.unfreeze()
        free_cached_memory()
        if thaws:
            gc.freeze()
        self._core_frozen = False
        self._model_frozen &= level == 1
        return_free_memory()
