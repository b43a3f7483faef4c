"""Any causal language model of transformers, with as many texts at once as fit."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from predictor.engine.base import SleepLevel
from predictor.engine.batched import BatchedEngine
from predictor.errors import ModelError
from predictor.loading.gguf.source import plain_source
from predictor.loading.tokenizer_file import file_versions, keep_tokenizer
from predictor.measurements.cache import MeasurementCache, measurement_cache
from predictor.measurements.process_cache import ProcessCache
from predictor.text.checkpoint import load_checkpoint

if TYPE_CHECKING:  # it imports torch, and the port is open before that
    import torch

    from predictor.text.batch import TextBatch
    from predictor.text.engine_core import TextEngineCore

log = logging.getLogger(__name__)


class TransformersEngine(BatchedEngine["TextEngineCore"]):
    """Writes texts."""

    _source = ""
    """The folder or hub id that was loaded."""
    _files: object = None
    """Versions of the files of a model in a folder, before it was loaded."""

    @cached_property
    def _cache(self) -> MeasurementCache:
        return ProcessCache(measurement_cache(self.settings.model, self.settings.cache_folder))

    def sleep(self, level: SleepLevel) -> None:
        """At level 2 the tokenizer is kept: a large one takes longer to read than the weights."""
        tokenizer = None if self._core is None else self._core.checkpoint.tokenizer
        super().sleep(level)
        if level == 2 and tokenizer is not None and self._files is not None:
            keep_tokenizer(self._source, self._files, tokenizer)

    def load_core(self, report: Callable[[str], None]) -> TextEngineCore:
        settings = self.settings
        with plain_source(settings.model, settings.revision, settings.cache_folder, report) as (source, revision):
            self._source = source
            self._files = file_versions(source) if os.path.isdir(source) else None
            checkpoint = load_checkpoint(
                source,
                settings.device,
                settings.dtype,
                report,
                settings.load_format,
                revision=revision,
                quantize=settings.quantize,
                pack_weights=settings.pack_weights and not settings.compile,
            )
        report("checking the batch")
        from predictor.engine.memory.memory_pressure import wait_for_memory
        from predictor.loading.device_memory import memory_share
        from predictor.text.batch import TextBatch
        from predictor.text.batch_check import check_sharing
        from predictor.text.capacity import plan_slots
        from predictor.text.engine_core import TextEngineCore
        from predictor.text.single_text_batch import SoloBatch

        cache = self._cache
        shared = check_sharing(checkpoint, settings.max_length, cache)
        if shared.obstacle:
            log.warning("one text at a time, because %s cannot be batched: %s", settings.model, shared.obstacle)
        report("measuring slots")
        wait_for_memory(settings.memory, checkpoint.device)
        memory = memory_share(checkpoint.device, settings.memory)
        most = shared.most(settings.max_concurrency)
        plan = plan_slots(checkpoint, shared.length, most, memory, shared.prefill_tokens, cache)
        log.info("%s", plan)
        if shared.obstacle:
            batch: TextBatch = SoloBatch(checkpoint.model, shared.length, shared.prefill_tokens)
        else:
            batch = TextBatch(checkpoint.model, plan.slots, shared.length)
            if settings.compile:
                report("compiling")
                compile_decoding(batch)
        core = TextEngineCore(checkpoint, batch, settings.max_waiting, enable_thinking=settings.enable_thinking)
        if shared.remembered:  # decoding has been tried then, and somebody may be waiting
            core.warm_up_tokens = 1
        return core

    def again(self, core: TextEngineCore) -> tuple[Sequence[torch.nn.Module], Callable[[], TextEngineCore]]:
        from predictor.text.batch import TextBatch
        from predictor.text.engine_core import TextEngineCore
        from predictor.text.single_text_batch import SoloBatch

        settings, checkpoint = self.settings, core.checkpoint
        slots, length, prefill_tokens = core.batch.slots, core.batch.length, core.batch.prefill_tokens
        alone = isinstance(core.batch, SoloBatch)

        def make() -> TextEngineCore:
            if alone:
                batch: TextBatch = SoloBatch(checkpoint.model, length, prefill_tokens)
            else:
                batch = TextBatch(checkpoint.model, slots, length, prefill_tokens)
                if settings.compile:
                    compile_decoding(batch)
            return TextEngineCore(checkpoint, batch, settings.max_waiting, enable_thinking=settings.enable_thinking)

        return [checkpoint.model], make


def compile_decoding(batch: TextBatch, backend: str = "inductor") -> None:
    """Have torch compile the decode step, for one row and for several. Raises ModelError where it cannot.

    The cache grows by a token at each step, so sizes are symbols; CUDA graphs would need them to be fixed.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as torch chooses it
    if backend == "inductor" and not shutil.which(compiler):
        raise ModelError(f"--compile needs a C++ compiler, and there is no {compiler}")
    import torch
    import torch._dynamo

    from predictor.text.row import TextRow
    from predictor.text.sampling.row_sampling import RowSampling

    # Its own code must run before its modules, which import from it: lean imports may have deferred it.
    getattr(torch._dynamo, "reset")  # noqa: B009  a plain attribute would be an expression without use
    batch.drafts = False  # what checks them is not compiled
    batch.decode_model = torch.compile(batch.decode_model, backend=backend, dynamic=True)
    # One row is a size of its own to torch, and rows of one length may do without a mask.
    for lengths in ((2,), (3, 3), (2, 5, 3)):
        rows = [TextRow([0] * length, RowSampling.greedy(), lambda _: False) for length in lengths[: batch.slots]]
        for row in rows:
            batch.join(row)
        try:
            while not all(len(row.tokens) >= length + 4 for row, length in zip(rows, lengths, strict=False)):
                batch.step()
        except RuntimeError as error:
            raise ModelError(f"torch cannot compile this model: {' '.join(str(error).split())[:300]}") from error
        for row in rows:
            batch.remove(row)
