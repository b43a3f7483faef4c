"""Whether a model computes the same logits in a batch as alone. Not every architecture does.

State-space and convolution layers keep no keys and values, some models build their attention bias from a padding mask
alone, and Llama 4 attends in chunks. Some of them raise; others would silently write nonsense.
"""

from __future__ import annotations

import logging
import random
import statistics
from dataclasses import dataclass
from typing import Any

import torch

from predictor.engine.memory.memory_pressure import device_failure
from predictor.errors import first_line
from predictor.measurements.cache import NOWHERE, MeasurementCache
from predictor.measurements.key import measurement_key
from predictor.measurements.records import TextVerdict
from predictor.text.batch import TextBatch
from predictor.text.capacity import served_length
from predictor.text.checkpoint import Checkpoint
from predictor.text.prefill import most_prefill_tokens
from predictor.text.rope_scaling import unscaled_length
from predictor.text.row import TextRow
from predictor.text.sampling.batch_sampler import BatchSampler, Choice
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.single_text_batch import SoloBatch

log = logging.getLogger(__name__)

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""The layer types that TextBatch can mask. The check is too short to notice others by their logits."""

FIRST, SECOND, LONG, PART = 2, 3, 8, 6
"""Tokens of three prompts, and of the parts in which prompts are read: only the third takes more than one."""

SOLO_PART = 3
"""Tokens of a part of a prompt alone: fewer than the kernels of convolutions."""

EXACT, ROUNDED = 0.01, 0.1
"""How far logits may be from those alone, relative to their norm: in float32, and in shorter types."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Whether texts of up to `length` tokens share a batch. Where not, `obstacle` says why, and prompts come in parts
    of `prefill_tokens`; both are None where they do. `remembered`: an earlier start found that out."""

    length: int
    obstacle: str | None
    prefill_tokens: int | None
    remembered: bool = False

    def most(self, max_concurrency: int | None) -> int | None:
        """Most slots, of `max_concurrency` as in EngineSettings."""
        return 1 if self.obstacle else max_concurrency


def check_sharing(checkpoint: Checkpoint, max_length: int | None, cache: MeasurementCache = NOWHERE) -> Sharing:
    """What is served of a checkpoint; `max_length` as in EngineSettings. What `cache` has is not checked again. Raises
    what its device raises."""
    length = served_length(checkpoint, max_length)
    key = measurement_key({"model": checkpoint.model}, length=length)
    verdict = known = cache.find(TextVerdict, key)
    if verdict is None:
        obstacle = why_not_batched(checkpoint.model, length)
        part = solo_prefill_tokens(checkpoint.model, length) if obstacle else None
        verdict = TextVerdict(obstacle=obstacle, prefill_tokens=part)
        cache.keep(verdict, key)
    return Sharing(length, verdict.obstacle, verdict.prefill_tokens, remembered=known is not None)


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
    # GPT-Neo counts the windows of its local layers from the end of the longest text, not of each.
    if "local" in (getattr(config, "attention_layers", None) or ()) and length > config.window_size:
        return (
            f"texts of more than {config.window_size} tokens hide the beginning of all texts beside them "
            f"(with --max-length {config.window_size} they share a batch)"
        )
    unknown = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS
    if unknown:
        return f"it has layers of other kinds: {', '.join(sorted(unknown))}"
    try:
        off = _distance_in_batch(model)
    except Exception as error:
        if device_failure(error):
            raise
        log.debug("the check of the batch failed", exc_info=True)
        return first_line(error)
    return None if off <= _allowed(model) else f"logits are off by {off:.0%} there"


def solo_prefill_tokens(model: Any, length: int) -> int:
    """How many tokens of a prompt SoloBatch may give this model in one forward: all of `length` where parts change what
    it writes. Some architectures begin from an empty state with each part. Raises what its device raises."""
    if unscaled_length(model.config.get_text_config()) is not None:
        return length  # the first parts would not know how long the whole is
    try:
        in_parts = _distance_in_parts(model) <= _allowed(model)
    except Exception as error:
        if device_failure(error):
            raise
        log.debug("the check of a prompt in parts failed", exc_info=True)
        in_parts = False
    return min(most_prefill_tokens(model.device), length) if in_parts else length


def _allowed(model: Any) -> float:
    return EXACT if model.dtype == torch.float32 else ROUNDED


class _KnownTexts:
    """Two random texts, and how far the logits of rows that write them are from those of the same texts alone, relative
    to their norm.

    Distances are kept for each row, before and after the last change of `phase`.
    """

    def __init__(self, model: Any) -> None:
        chance = random.Random(0)
        vocabulary = model.config.get_text_config().vocab_size
        self._texts = [[chance.randrange(vocabulary) for _ in range(LONG + 3)] for _ in range(2)]
        with torch.inference_mode():
            # [texts, tokens, vocabulary]
            self._alone = model(input_ids=torch.tensor(self._texts, device=model.device), use_cache=False).logits
        self._text_of: dict[TextRow, int] = {}
        self._distances: dict[tuple[TextRow, str], list[float]] = {}
        self.phase = ""

    def row(self, text: int, tokens: int) -> TextRow:
        """A row with the first `tokens` of a text as its prompt."""
        row = TextRow(self._texts[text][:tokens], RowSampling.greedy(), lambda _: False)
        self._text_of[row] = text
        return row

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        for row, batched in zip(rows, logits, strict=True):
            own = self._alone[self._text_of[row], len(row.tokens) - 1].float()
            off = (batched.float() - own).norm() / (own - own.mean()).norm()
            self._distances.setdefault((row, self.phase), []).append(float(off.nan_to_num(nan=torch.inf)))
        tokens = [self._texts[self._text_of[row]][len(row.tokens)] for row in rows]
        return Choice(torch.tensor(tokens, device=logits.device), logits, sampler)

    @property
    def distance(self) -> float:
        """Of the row and the phase that are the farthest off. Keys or a state that are wrong tell on every token, while
        rounding may choose another expert for one."""
        return max(statistics.median_low(distances) for distances in self._distances.values())


class _CheckedBatch(TextBatch):
    def __init__(self, model: Any, texts: _KnownTexts) -> None:
        super().__init__(model, slots=3, length=LONG + 3, prefill_tokens=PART)
        self.drafts = False  # each row has the next token of its known text
        self._is_coarse = False  # prompts go together and in parts
        self._texts = texts

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        return self._texts.choose(rows, logits, sampler)


class _CheckedSoloBatch(SoloBatch):
    def __init__(self, model: Any, texts: _KnownTexts) -> None:
        super().__init__(model, length=16, prefill_tokens=SOLO_PART)
        self._texts = texts

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        return self._texts.choose(rows, logits, sampler)


def _distance_in_batch(model: Any) -> float:
    """How far logits in a batch are from those alone, before and after rows were removed.

    Eight small steps, because every start waits for them. Two texts are enough for three rows: the first row and the
    long one are never both in the cache when one could be taken for the other.
    """
    texts = _KnownTexts(model)
    batch = _CheckedBatch(model, texts)
    first = texts.row(0, FIRST)
    batch.join(first)
    batch.join(texts.row(1, SECOND))
    batch.step()  # both prompts
    batch.step()  # a token of each
    batch.join(texts.row(0, LONG))
    batch.step()  # the first part of it
    texts.phase = "others removed"
    batch.remove(first)  # the second row moves to its place, and the half of the long one after that
    batch.join(first)
    for _ in range(5):  # a token, the rest of the long prompt, two tokens, the first row again, three tokens
        batch.step()
    return texts.distance


def _distance_in_parts(model: Any) -> float:
    """How far logits after a prompt in parts are from those after a whole one."""
    texts = _KnownTexts(model)
    batch = _CheckedSoloBatch(model, texts)
    batch.join(texts.row(0, LONG))
    for _ in range(5):  # three parts, two tokens
        batch.step()
    return texts.distance
