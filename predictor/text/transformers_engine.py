"""Any causal language model of transformers, with as many texts at once as fit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from predictor.engine.batched import BatchedEngine
from predictor.text.checkpoint import load_checkpoint

if TYPE_CHECKING:  # it imports torch, and the port is open before that
    from predictor.text.engine_core import TextEngineCore

log = logging.getLogger(__name__)


class TransformersEngine(BatchedEngine["TextEngineCore"]):
    """Writes texts."""

    def load_core(self, report: Callable[[str], None]) -> TextEngineCore:
        settings = self.settings
        checkpoint = load_checkpoint(
            settings.model,
            settings.device,
            settings.dtype,
            report,
            settings.load_format,
            revision=settings.revision,
        )
        report("checking the batch")
        from predictor.engine.memory_pressure import wait_for_memory
        from predictor.loading.device_memory import memory_share
        from predictor.text.batch import TextBatch
        from predictor.text.batch_check import solo_prefill_tokens, why_not_batched
        from predictor.text.capacity import plan_slots, served_length
        from predictor.text.engine_core import TextEngineCore
        from predictor.text.single_text_batch import SoloBatch

        length = served_length(checkpoint, settings.max_length)
        obstacle = why_not_batched(checkpoint.model, length)
        if obstacle:
            log.warning("one text at a time, because %s cannot be batched: %s", settings.model, obstacle)
        prefill_tokens = solo_prefill_tokens(checkpoint.model, length) if obstacle else None
        report("measuring slots")
        max_concurrency = 1 if obstacle else settings.max_concurrency
        wait_for_memory(settings.memory, checkpoint.device)
        memory = memory_share(checkpoint.device, settings.memory)
        plan = plan_slots(checkpoint, length, max_concurrency, memory, prefill_tokens)
        log.info("%s", plan)
        if obstacle:
            batch: TextBatch = SoloBatch(checkpoint.model, length, prefill_tokens)
        else:
            batch = TextBatch(checkpoint.model, plan.slots, length)
        return TextEngineCore(checkpoint, batch, settings.max_waiting, enable_thinking=settings.enable_thinking)
