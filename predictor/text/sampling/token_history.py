"""What the rows of a batch have said, where that decides on their next tokens."""

from __future__ import annotations

import torch

_NONE = -1
"""In place of a token that does not count."""


class TokenHistory:
    """The tokens of prompts and texts, on their device, for the repetition penalty; in the order of the cache's rows.
    A row without a penalty need not be in it."""

    def __init__(self, slots: int, length: int, device: torch.device) -> None:
        self._tokens = torch.zeros(slots, length, dtype=torch.long, device=device)

    def begin(self, row: int, tokens: list[int]) -> None:
        """A row has these tokens, from now on; at least one."""
        self._fill(row, tokens[0], tokens)  # the rest of the row says again what it says anyway

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

    def _fill(self, row: int, rest: int, tokens: list[int]) -> None:
        self._tokens[row] = rest
        self._tokens[row, : len(tokens)] = torch.tensor(tokens, device=self._tokens.device)


class TextHistory(TokenHistory):
    """The same without the prompts, for OpenAI's penalties."""

    def begin_text(self, row: int, tokens: list[int], prompt_tokens: int) -> None:
        """A row has these tokens, the first of them its prompt."""
        self._fill(row, _NONE, [_NONE] * prompt_tokens + tokens[prompt_tokens:])

    def subtract(
        self, logits: torch.Tensor, first: int, longest: int, numbers: torch.Tensor, penalties: torch.Tensor
    ) -> None:
        """Subtract from `logits` [rows, vocabulary] of the rows of these `numbers`, counted from `first` on, as their
        `penalties` [numbers, 2] have it: the first for each time that the text has the token, the second once."""
        said = self._tokens[first + numbers, :longest]
        own = logits[numbers]
        counts = torch.zeros_like(own).scatter_add_(1, said.clamp(min=0), (said != _NONE).float())
        frequency, presence = penalties.split(1, dim=1)
        logits.index_copy_(0, numbers, own - (counts * frequency + (counts > 0) * presence))
