"""Whether a model computes the same logits in a batch as alone. Not every architecture does.

State-space and convolution layers keep no keys and values, some models build their attention bias from a padding mask
alone, and Llama 4 attends in chunks. Some of them raise; others would silently write nonsense.
"""

from __future__ import annotations

import logging
import random
import statistics
from typing import Any

import torch

from predictor.text.batch import TextBatch, TextRow
from predictor.text.sampler import RowSampling

log = logging.getLogger(__name__)

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""The layer types that TextBatch can mask. The check is too short to notice others by their logits."""

EXACT, ROUNDED = 0.01, 0.1
"""How far logits may be from those alone, relative to their norm: in float32, and in shorter types."""


def why_not_batched(model: Any) -> str | None:
    """Why texts of this model cannot share a batch; None when they can."""
    unknown = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - KNOWN_LAYERS
    if unknown:
        return f"it has layers of other kinds: {', '.join(sorted(unknown))}"
    try:
        off = statistics.median(_distances(model))
    except Exception as error:
        log.debug("the check of the batch failed", exc_info=True)
        return str(error).strip().partition("\n")[0] or type(error).__name__
    if not off <= (EXACT if model.dtype == torch.float32 else ROUNDED):
        return f"logits are off by {off:.0%} there"
    return None


class _RecordingBatch(TextBatch):
    """Records each choice: the row, its number of tokens, and the logits [vocabulary]."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, slots=2, length=16)
        self.recorded: list[tuple[TextRow, int, torch.Tensor]] = []

    def choose(self, rows: list[TextRow], logits: torch.Tensor) -> list[int]:
        for row, own in zip(rows, logits, strict=True):
            self.recorded.append((row, len(row.tokens), own.float().clone()))
        return super().choose(rows, logits)


def _distances(model: Any) -> list[float]:
    """How far the logits of each step in a batch are from those of the same tokens alone, relative to their norm."""
    chance = random.Random(0)
    batch = _RecordingBatch(model)
    rows = []
    for length in (3, 7):  # so that they differ in age and length
        prompt = [chance.randrange(model.config.get_text_config().vocab_size) for _ in range(length)]
        rows.append(TextRow(prompt, RowSampling(0.0, 0, 1.0, 0.0, 1.0, chance), lambda _: False))
        batch.join(rows[-1])
        for _ in range(3):
            batch.step()
    alone = {}
    for row in rows:
        with torch.inference_mode():
            ids = torch.tensor([row.tokens], device=model.device)
            alone[row] = model(input_ids=ids, use_cache=False).logits[0].float()
    pairs = [(batched, alone[row][length - 1]) for row, length, batched in batch.recorded]
    return [float((batched - own).norm() / (own - own.mean()).norm()) for batched, own in pairs]
