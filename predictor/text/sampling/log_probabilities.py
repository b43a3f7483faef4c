"""How likely the model itself found the tokens of those rows that ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from contract.limits import TOP_LOGPROBS
from predictor.text.sampling import token_choice

LEAST = -9999.0
"""In place of the logarithm of a probability of 0, as OpenAI has it: JSON knows no infinity."""


@dataclass(frozen=True, slots=True)
class TokenLikelihood:
    """Natural logarithms of probabilities: of a token, and of the likeliest in its place with their ids, the likeliest
    first."""

    logprob: float
    likeliest: list[tuple[int, float]]


class LogProbabilities:
    """Of rows of `logits` [rows, vocabulary] as the model made them, which may be changed afterwards: of the rows with
    these `numbers`, and `counts` of the likeliest in the place of each row's token. Waits for nothing."""

    def __init__(self, logits: torch.Tensor, numbers: torch.Tensor, counts: Mapping[int, int]) -> None:
        self._numbers = numbers
        self._counts = counts
        self._logits = logits[numbers]
        self._total = self._logits.logsumexp(-1, keepdim=True)
        # As many of each row, whatever those beside it ask for: of equals, another number may take others.
        count = min(TOP_LOGPROBS, logits.shape[1]) if any(counts.values()) else 0
        values, ids = token_choice.largest(self._logits, count) if count else (self._total[:, :0],) * 2
        self._likeliest, self._ids = values - self._total, ids

    def read(self, tokens: torch.Tensor) -> dict[int, TokenLikelihood]:
        """By the rows' numbers, where these `tokens` [rows] of all rows were chosen. Waits for the device."""
        chosen = self._logits.gather(1, tokens[self._numbers][:, None]) - self._total
        values: list[list[float]] = torch.cat([chosen, self._likeliest], 1).tolist()
        likelihoods = {}
        for (number, count), (logprob, *likeliest), ids in zip(
            self._counts.items(), values, self._ids.tolist(), strict=True
        ):
            found = sorted(zip(ids, map(_finite, likeliest), strict=True), key=lambda one: (-one[1], one[0]))
            likelihoods[number] = TokenLikelihood(_finite(logprob), found[:count])
        return likelihoods


def _finite(logprob: float) -> float:
    """With as many digits as float32 has, which are fewer bytes for a client."""
    return round(max(LEAST, logprob), 6)  # in this order, of what is no number, too
