"""A forward of prompts: which of them go together, and logits of no more than the last token of each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from predictor.cpu.packed_linear import LONG
from predictor.cpu.threads import threads_for

PADDING_SHARE = 4
"""One in so many positions of a forward may be padding."""

SMALL_FORWARD = 128
"""A forward of fewer positions takes hardly less time, for it reads all weights: so much may be padded in any case."""


def most_prefill_tokens(device: torch.device) -> int:
    """Most positions of prompts between two tokens of the running rows. A GPU is not busy with fewer."""
    return 2048 if device.type == "cuda" else 512


def prompts_together(lengths: Sequence[int], most: int) -> list[int]:
    """Which prompts of these lengths share a forward of at most `most` positions, where each is padded to the longest:
    the first, however long it is, and those that are nearest to its length."""
    chosen, tokens, longest = [0], lengths[0], lengths[0]
    for index in sorted(range(1, len(lengths)), key=lambda index: abs(lengths[index] - lengths[0])):
        longer = max(longest, lengths[index])
        positions = longer * (len(chosen) + 1)
        padding = positions - tokens - lengths[index]
        if positions <= most and padding <= max(positions, SMALL_FORWARD) // PADDING_SHARE:
            chosen.append(index)
            tokens, longest = tokens + lengths[index], longer
    return chosen


SHORT_STEP = 32
"""Attention rounds by the number of positions. Where that may change a text, short prompts are padded to a multiple of
this, whether others come with them or not."""

MOST_SHORT = 256
"""Positions of short prompts that share a forward: more of them take no less time together than one after another."""


def short_prompts_together(lengths: Sequence[int], longest: int) -> tuple[list[int], int]:
    """Which prompts of these lengths share a forward with the first, and to how many positions each is padded, at most
    `longest`. What comes of each is to the bit what comes of it alone. The first one alone and as it is, if it is long.
    """
    width = rounded_up(lengths[0], SHORT_STEP)
    if width > longest or width >= LONG:
        return [0], lengths[0]
    alike = [index for index, length in enumerate(lengths) if rounded_up(length, SHORT_STEP) == width]
    return alike[: MOST_SHORT // width], width


def rounded_up(number: int, step: int) -> int:
    """The next multiple of `step`, or the number itself."""
    return -(-number // step) * step


def logits_at(places: torch.Tensor, model: Any, **inputs: Any) -> torch.Tensor:
    """Logits [rows, vocabulary] of the token after one place of each row, at `places` [rows] of the tokens in `inputs`.

    The model's head is given those places alone, because logits of all take more memory and time than the rest. The
    model itself calls it, and scales or caps what it says. A model that calls no such head makes logits of all.
    No other thread may compute with the model meanwhile.
    """
    rows = torch.arange(len(places), device=places.device)

    def narrow(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *others = inputs
        return hidden[rows, places][:, None], *others

    head = model.get_output_embeddings()
    hook = contextlib.nullcontext() if head is None else head.register_forward_pre_hook(narrow)
    # Threads round otherwise, too, by how work is split: far below what changes a text, but not in short numbers.
    positions = inputs["input_ids"].numel() if model.dtype == torch.float32 else 0
    with hook, threads_for(positions):
        logits: torch.Tensor = model(**inputs).logits
    return logits[:, 0] if logits.shape[1] == 1 else logits[rows, places]
