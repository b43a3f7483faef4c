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

from predictor.engine.memory_pressure import device_failure
from predictor.text.batch import TextBatch, TextRow
from predictor.text.rope_scaling import unscaled_length
from predictor.text.sampler import BatchSampler, Choice, RowSampling

log = logging.getLogger(__name__)

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""The layer types that TextBatch can mask. The check is too short to notice others by their logits."""

FIRST, SECOND, LONG, PART = 2, 3, 8, 6
"""Tokens of three prompts, and of the parts in which prompts are read: only the third takes more than one."""

EXACT, ROUNDED = 0.01, 0.1
"""How far logits may be from those alone, relative to their norm: in float32, and in shorter types."""


def why_not_batched(model: Any, length: int = 0) -> str | None:
    """Why texts of up to `length` tokens cannot share a batch of this model; None when they can. Raises what its device
    raises."""
    config = model.config.get_text_config()
    unscaled = unscaled_length(config)
    if unscaled is not None and length > unscaled:
        return (
            f"texts of more than {unscaled} tokens change the positions of all texts beside them "
            f"(with --max-length {unscaled} they share a batch)"
        )
    unknown = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS
    if unknown:
        return f"it has layers of other kinds: {', '.join(sorted(unknown))}"
    try:
        off = max(statistics.median_low(distances) for distances in _distances(model).values())
    except Exception as error:
        if device_failure(error):
            raise
        log.debug("the check of the batch failed", exc_info=True)
        return str(error).strip().partition("\n")[0] or type(error).__name__
    if not off <= (EXACT if model.dtype == torch.float32 else ROUNDED):
        return f"logits are off by {off:.0%} there"
    return None


class _CheckedBatch(TextBatch):
    """Writes given texts, and notes how far its logits are from those of the same texts alone, relative to their norm.

    `alone` are the logits [texts, tokens, vocabulary]. Distances are kept for each row, before and after its last
    `phase`: a row that reads wrong keys does so at every token, while rounding may choose another expert at one.
    """

    def __init__(self, model: Any, texts: list[list[int]], alone: torch.Tensor) -> None:
        # Four slots, because a forward has as many logits at most: of two prompts at two positions.
        super().__init__(model, slots=4, length=16, prefill_tokens=PART)
        self._texts = texts
        self._alone = alone
        self._text_of: dict[TextRow, int] = {}
        self.phase = ""
        self.distances: dict[tuple[TextRow, str], list[float]] = {}

    def begin(self, text: int, tokens: int) -> TextRow:
        """Join a row with the first `tokens` of a text as its prompt."""
        sampling = RowSampling(0.0, 0, 1.0, 0.0, 1.0, random.Random(0))
        row = TextRow(self._texts[text][:tokens], sampling, lambda _: False)
        self._text_of[row] = text
        self.join(row)
        return row

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        for row, batched in zip(rows, logits, strict=True):
            own = self._alone[self._text_of[row], len(row.tokens) - 1].float()
            off = (batched.float() - own).norm() / (own - own.mean()).norm()
            self.distances.setdefault((row, self.phase), []).append(float(off.nan_to_num(nan=torch.inf)))
        tokens = [self._texts[self._text_of[row]][len(row.tokens)] for row in rows]
        return Choice(torch.tensor(tokens, device=logits.device), logits, sampler)


def _distances(model: Any) -> dict[tuple[TextRow, str], list[float]]:
    """How far logits in a batch are from those alone, of each row before and after others were removed.

    Eight small steps, because every start waits for them. Two texts are enough for three rows: the first row and the
    long one are never both in the cache when one could be taken for the other.
    """
    chance = random.Random(0)
    vocabulary = model.config.get_text_config().vocab_size
    texts = [[chance.randrange(vocabulary) for _ in range(LONG + 3)] for _ in range(2)]
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor(texts, device=model.device), use_cache=False).logits
    batch = _CheckedBatch(model, texts, alone)
    first = batch.begin(0, FIRST)
    batch.begin(1, SECOND)
    batch.step()  # both prompts
    batch.step()  # a token of each
    batch.begin(0, LONG)
    batch.step()  # the first part of it
    batch.phase = "others removed"
    batch.remove(first)  # the second row moves to its place, and the half of the long one after that
    batch.join(first)
    for _ in range(5):  # a token, the rest of the long prompt, two tokens, the first row again, three tokens
        batch.step()
    return batch.distances
