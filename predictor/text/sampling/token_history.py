"""What the rows of a batch have said, where that decides on their next tokens."""

from __future__ import annotations

import torch


class TokenHistory:
    """What the rows of a batch have said, on its device, for the repetition penalty; in the order of the cache's rows.
    A row without a penalty need not be in it."""

    def __init__(self, slots: int, length: int, device: torch.device) -> None:
        self._tokens = torch.zeros(slots, length, dtype=torch.long, device=device)

    def begin(self, row: int, tokens: list[int]) -> None:
        """A row has these tokens, from now on; at least one."""
        self._tokens[row] = tokens[0]  # the rest of the row says again what it says anyway
        self._tokens[row, : len(tokens)] = torch.tensor(tokens, device=self._tokens.device)

    def append(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        """The first rows have the tokens `ids` [rows] at `positions` [rows]. May be said again."""
        self._tokens[torch.arange(len(ids), device=ids.device), positions] = ids

    def move(self, source: int, target: int) -> None:
        """Copy a row over another."""
        with torch.inference_mode():
            self._tokens[target] = self._tokens[source]

    def penalize(self, logits: torch.Tensor, first: int, longest: int, penalty: torch.Tensor) -> None:
        """Make tokens less likely in `logits` [rows, vocabulary] that the rows from `first` on have among their first
        `longest`: as transformers' RepetitionPenaltyLogitsProcessor, with the rows' `penalty` [rows, 1]."""
        seen = self._tokens[first : first + len(logits), :longest]
        known = logits.gather(1, seen)
        logits.scatter_(1, seen, torch.where(known < 0, known * penalty, known / penalty))
