"""What makes the tokens that a text has already less likely, or likelier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from predictor.text.sampling.batch_sampler import BatchSampler
from predictor.text.sampling.token_history import TextHistory, TokenHistory


class SaidTokens(Protocol):
    """A row of the batch: its tokens, of which the first are its prompt."""

    tokens: list[int]
    prompt_tokens: int


class Penalties:
    """Of the rows of a batch, in the order of its cache. Costs nothing where no row has any."""

    def __init__(self, slots: int, length: int, device: torch.device) -> None:
        self._slots, self._length, self._device = slots, length, device
        self._tokens: TokenHistory | None = None  # None until a row has a repetition penalty
        self._texts: TextHistory | None = None  # None until one has another

    def begin(self, rows: Sequence[SaidTokens], first: int, sampler: BatchSampler) -> None:
        """These rows of the sampler join, as those from number `first` on."""
        if sampler.penalizes:
            self._tokens = self._tokens or TokenHistory(self._slots, self._length, self._device)
            for number, row in enumerate(rows, first):
                self._tokens.begin(number, row.tokens)
        if sampler.counted is not None:
            self._texts = self._texts or TextHistory(self._slots, self._length, self._device)
            for number, row in enumerate(rows, first):
                self._texts.begin_text(number, row.tokens, row.prompt_tokens)

    def append(self, ids: torch.Tensor, positions: torch.Tensor, sampler: BatchSampler) -> None:
        """The first rows have the tokens `ids` [rows] at `positions` [rows]. May be said again."""
        if self._tokens is not None and sampler.penalizes:
            self._tokens.append(ids, positions)
        if self._texts is not None and sampler.counted is not None:
            self._texts.append(ids, positions)

    def move(self, source: int, target: int) -> None:
        """Copy a row over another."""
        for history in (self._tokens, self._texts):
            if history is not None:
                history.move(source, target)

    def apply(self, logits: torch.Tensor, first: int, longest: int, sampler: BatchSampler) -> None:
        """Change `logits` [rows, vocabulary] of the sampler's rows, which are those from number `first` on, by their
        first `longest` tokens."""
        if self._tokens is not None and sampler.penalizes:
            self._tokens.penalize(logits, first, longest, sampler.penalty)
        if self._texts is not None and sampler.counted is not None:
            self._texts.subtract(logits, first, longest, sampler.counted, sampler.count_penalties)
