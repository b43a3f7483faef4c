"""The next token of every row of a batch, each with its own parameters and its own random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from predictor.text.sampling import token_choice
from predictor.text.sampling.constraint import forbid
from predictor.text.sampling.log_probabilities import LogProbabilities, TokenLikelihood
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
            own = self._numbers(row.temperature > 0 and _looks_at_few(row) == few for row in rows)
            if own is not None:
                self._sampling[few] = own
        self.counted = self._numbers(row.counts for row in rows)
        """The numbers of the rows with a frequency or presence penalty, if any, whose `count_penalties` those are."""
        counting = [(row.frequency_penalty, row.presence_penalty) for row in rows if row.counts]
        self.count_penalties = torch.tensor(counting, device=device) if counting else self._draws
        self.looks_back = self.penalizes or bool(counting)
        """Whether any row has a penalty."""
        self.constrained = [number for number, row in enumerate(rows) if row.constraint is not None]
        """The numbers of the rows that have a constraint."""
        self._constrained = self._numbers(row.constraint is not None for row in rows)
        self._biases = self._bias_tensors()
        self._likeliest = {number: row.top_logprobs for number, row in enumerate(rows) if row.top_logprobs is not None}
        self._told = self._numbers(row.top_logprobs is not None for row in rows)

    def _numbers(self, of_rows: Iterable[bool]) -> torch.Tensor | None:
        """The numbers of the rows of which something is true; None where it is of none."""
        numbers = [number for number, one in enumerate(of_rows) if one]
        return torch.tensor(numbers, device=self._device) if numbers else None

    def _bias_tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Rows, tokens, and what is added to the logits of each."""
        biases = [(number, *bias) for number, row in enumerate(self._rows) for bias in row.logit_bias.items()]
        if not biases:
            return None
        rows, tokens, values = zip(*biases, strict=True)
        places = torch.tensor([rows, tokens], device=self._device)
        return places[0], places[1], torch.tensor(values, device=self._device)

    def draw(self, draws: Sequence[float] = ()) -> None:
        """Copy the rows' random numbers to the device, or `draws` in their place. Before the forward, because the copy
        waits for what runs."""
        if self._sampling:
            numbers = draws or [row.draw for row in self._rows]
            self._draws = torch.tensor(numbers, device=self._device)[:, None]

    def log_probabilities(self, logits: torch.Tensor) -> LogProbabilities | None:
        """Of the rows that ask, by `logits` [rows, vocabulary] that nothing has changed yet."""
        return None if self._told is None else LogProbabilities(logits, self._told, self._likeliest)

    def choose(
        self,
        logits: torch.Tensor,
        masks: Sequence[torch.Tensor] = (),
        log_probabilities: LogProbabilities | None = None,
    ) -> Choice:
        """One token for each row of `logits` [rows, vocabulary], which are changed by the rows' biases and by the
        `masks` of the `constrained` rows. Does not wait for the device."""
        tokens = self._tokens(logits, masks)
        return Choice(tokens, logits, self, log_probabilities)

    def _tokens(self, logits: torch.Tensor, masks: Sequence[torch.Tensor]) -> torch.Tensor:
        if self._biases is not None:
            rows, ids, values = self._biases
            logits[rows, ids] += values
        if self._constrained is not None:
            forbid(logits, self._constrained, masks)
        for few, own in self._sampling.items():
            if len(own) == len(logits):
                return token_choice.sample_likeliest(logits, self._parameters, self._draws, few)
        tokens = token_choice.likeliest(logits)
        for few, own in self._sampling.items():
            sampled = token_choice.sample_likeliest(logits[own], self._parameters[own], self._draws[own], few)
            tokens.index_copy_(0, own, sampled)
        return tokens

    def decide(self, logits: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        """Tokens [rows] of the rows of these numbers, from their whole vocabulary."""
        own = torch.tensor(numbers, device=self._device)
        return token_choice.sample_vocabulary(logits[own], self._parameters[own], self._draws[own])


class Choice:
    """The tokens [rows] that were chosen from logits [rows, vocabulary], on their device."""

    def __init__(
        self,
        tokens: torch.Tensor,
        logits: torch.Tensor,
        sampler: BatchSampler,
        log_probabilities: LogProbabilities | None = None,
    ) -> None:
        self.tokens = tokens
        self._log_probabilities = log_probabilities
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

    def read_likelihoods(self) -> Mapping[int, TokenLikelihood]:
        """After `read`: of the rows that ask, by their numbers. Two further copies to the host where there are any."""
        if self._log_probabilities is None:
            return {}
        with torch.inference_mode():
            return self._log_probabilities.read(self.tokens)


def _looks_at_few(row: RowSampling) -> bool:
    return 0 < row.top_k <= token_choice.FEW_CANDIDATES
