"""Any text-to-image pipeline of diffusers, with as many pictures at once as fit and as are worth it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from predictor.engine.batched import BatchedEngine
from predictor.errors import ModelError
from predictor.loading.quantization import refuse_for_pictures
from predictor.measurements.cache import MeasurementCache, measurement_cache
from predictor.measurements.process_cache import ProcessCache

if TYPE_CHECKING:  # they import torch, and the port is open before that
    import torch

    from predictor.pictures.engine_core import PictureEngineCore
    from predictor.pictures.pipeline import Pipeline

log = logging.getLogger(__name__)


class DiffusersEngine(BatchedEngine["PictureEngineCore"]):
    """Paints pictures."""

    @cached_property
    def _cache(self) -> MeasurementCache:
        return ProcessCache(measurement_cache(self.settings.model, self.settings.cache_folder))

    def load_core(self, report: Callable[[str], None]) -> PictureEngineCore:
        refuse_for_pictures(self.settings.quantize)
        report("importing torch")
        import torch  # noqa: F401  the longest import by far, so it is a phase of its own

        from predictor.engine.memory.memory_pressure import wait_for_memory
        from predictor.loading.device_memory import memory_share
        from predictor.pictures.batch_check import most_together
        from predictor.pictures.engine_core import PictureEngineCore
        from predictor.pictures.model_defaults import ModelDefaults
        from predictor.pictures.pipeline_loading import load_pipeline

        settings = self.settings
        pipeline = load_pipeline(
            settings.model,
            settings.device,
            settings.dtype,
            report,
            revision=settings.revision,
            defaults=ModelDefaults(settings.steps, settings.guidance),
            size=settings.size,
            max_pixels=settings.max_pixels,
            pack_weights=settings.pack_weights,
        )
        cache = self._cache
        wait_for_memory(settings.memory, pipeline.device)
        memory = memory_share(pipeline.device, settings.memory)
        if settings.slots:
            slots = most_together(pipeline, settings.slots, cache)
        else:
            slots = self._measured_slots(pipeline, memory, cache, report)
        return PictureEngineCore(pipeline, slots, settings.max_waiting)

    def again(self, core: PictureEngineCore) -> tuple[Sequence[torch.nn.Module], Callable[[], PictureEngineCore]]:
        pipeline, slots, preview = core.pipeline, core.batch.slots, core.preview

        def make() -> PictureEngineCore:
            from predictor.pictures.engine_core import PictureEngineCore

            return PictureEngineCore(pipeline, slots, self.settings.max_waiting, preview)

        return list(pipeline.models.values()), make

    def _measured_slots(
        self, pipeline: Pipeline, memory: int, cache: MeasurementCache, report: Callable[[str], None]
    ) -> int:
        from predictor.pictures.capacity import plan_pictures

        report("measuring slots")
        source = self.settings.model
        try:
            plan = plan_pictures(pipeline, self.settings.max_concurrency, memory, cache)
        except ModelError:
            raise
        except Exception as error:
            log.debug("the first picture failed", exc_info=True)
            raise ModelError(f"{source} cannot make a picture: {type(error).__name__}: {error}") from error
        log.info("%s", plan)
        return plan.slots
