"""The next token of every row of a batch, each with its own parameters and its own random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from predictor.text.sampling import token_choice
from predictor.text.sampling.constraint import forbid
from predictor.text.sampling.row_sampling import RowSampling


class BatchSampler:
    """Chooses the next tokens of the same rows, step after step. Their parameters go to the device once."""

    def __init__(self, rows: Sequence[RowSampling], device: torch.device) -> None:
        self._rows = rows
        self._device = device
        self._parameters = torch.tensor(
            [
                (row.temperature or 1.0, row.top_k or math.inf, row.top_p, row.min_p, row.repetition_penalty)
                for row in rows
            ],
            device=device,
        )
        self.penalizes = any(row.repetition_penalty != 1 for row in rows)
        self.penalty = self._parameters[:, 4:]
        self._draws = self._parameters[:, :0]
        # The numbers of the rows that sample, by whether they look at few candidates.
        self._sampling: dict[bool, torch.Tensor] = {}
        for few in (True, False):
            if own := [at for at, row in enumerate(rows) if row.temperature and _looks_at_few(row) == few]:
                self._sampling[few] = torch.tensor(own, device=device)

        self.constrained = [at for at, row in enumerate(rows) if row.constraint is not None]
        """The numbers of the rows that have a constraint."""
        self._constrained = torch.tensor(self.constrained, device=device) if self.constrained else None

    def draw(self, draws: Sequence[float] = ()) -> None:
        """Copy the rows' random numbers to the device, or `draws` in their place. Before the forward, because the copy
        waits for what runs."""
        if self._sampling:
            numbers = draws or [row.draw for row in self._rows]
            self._draws = torch.tensor(numbers, device=self._device)[:, None]

    def choose(self, logits: torch.Tensor, masks: Sequence[torch.Tensor] = ()) -> Choice:
        """One token for each row of `logits` [rows, vocabulary], which are changed where `masks` of the `constrained`
        rows forbid tokens. Does not wait for the device."""
        if self._constrained is not None:
            forbid(logits, self._constrained, masks)
        for few, own in self._sampling.items():
            if len(own) == len(logits):
                return Choice(token_choice.sample_likeliest(logits, self._parameters, self._draws, few), logits, self)
        tokens = token_choice.likeliest(logits)
        for few, own in self._sampling.items():
            sampled = token_choice.sample_likeliest(logits[own], self._parameters[own], self._draws[own], few)
            tokens.index_copy_(0, own, sampled)
        return Choice(tokens, logits, self)

    def decide(self, logits: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        """Tokens [rows] of the rows of these numbers, from their whole vocabulary."""
        own = torch.tensor(numbers, device=self._device)
        return token_choice.sample_vocabulary(logits[own], self._parameters[own], self._draws[own])


class Choice:
    """The tokens [rows] that were chosen from logits [rows, vocabulary], on their device."""

    def __init__(self, tokens: torch.Tensor, logits: torch.Tensor, sampler: BatchSampler) -> None:
        self.tokens = tokens
        self._logits = logits
        self._sampler = sampler

    def read(self) -> list[int]:
        """Wait for the tokens: one copy to the host. Another where some are still to be decided, which is rare."""
        tokens: list[int] = self.tokens.tolist()
        undecided = [number for number, token in enumerate(tokens) if token == token_choice.UNDECIDED]
        if undecided:
            with torch.inference_mode():
                decided = self._sampler.decide(self._logits, undecided)
                self.tokens.index_copy_(0, torch.tensor(undecided, device=decided.device), decided)
            for number, token in zip(undecided, decided.tolist(), strict=True):
                tokens[number] = token
        return tokens


def _looks_at_few(row: RowSampling) -> bool:
    return 0 < row.top_k <= token_choice.FEW_CANDIDATES
