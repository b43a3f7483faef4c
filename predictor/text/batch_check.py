"""Whether a model says in a batch what it says alone; not every architecture does.

State-space and convolution layers keep no keys and values, some models build their attention bias from a padding mask
alone, and Llama 4 attends in chunks. Some of them raise, some would write nonsense without a word.
"""

from __future__ import annotations

import logging
import random
import statistics
from typing import Any

import torch

from predictor.text.batch import Batch, Row
from predictor.text.sampler import RowSampling

log = logging.getLogger(__name__)

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""The kinds of layers that Batch knows how to mask. The check is too short to tell the others by what they say."""

EXACT, ROUNDED = 0.01, 0.1
"""How far logits may be from the model's own, as a part of their norm: in float32, and in shorter types."""


def why_not_batched(model: Any) -> str | None:
    """What speaks against serving texts of this model in one batch, if they come out otherwise than alone."""
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


class _HeardBatch(Batch):
    """Keeps what the model said: the row, how many tokens it had, and the logits."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, capacity=2, length=16)
        self.heard: list[tuple[Row, int, torch.Tensor]] = []

    def choose(self, rows: list[Row], logits: torch.Tensor) -> list[int]:
        for row, said in zip(rows, logits, strict=True):
            self.heard.append((row, len(row.tokens), said.float().clone()))
        return super().choose(rows, logits)


def _distances(model: Any) -> list[float]:
    chance = random.Random(0)
    batch = _HeardBatch(model)
    rows = []
    for length in (3, 7):  # of different age and length
        prompt = [chance.randrange(model.config.get_text_config().vocab_size) for _ in range(length)]
        rows.append(Row(prompt, RowSampling(0.0, 0, 1.0, 0.0, 1.0, chance), lambda _: False))
        batch.join(rows[-1])
        for _ in range(3):
            batch.step()
    alone = {}
    for row in rows:
        with torch.inference_mode():
            ids = torch.tensor([row.tokens], device=model.device)
            alone[row] = model(input_ids=ids, use_cache=False).logits[0].float()
    expected = [(said, alone[row][length - 1]) for row, length, said in batch.heard]
    return [float((said - own).norm() / (own - own.mean()).norm()) for said, own in expected]
