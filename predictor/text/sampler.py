"""The next token of every row of a batch, each with its own parameters and its own random numbers.

There are three cases. A row of temperature 0 is greedy. Any other row samples among its likeliest tokens
where those are enough to decide, because sorting a whole vocabulary takes longer than a forward of a small model. Where
they are not, it samples from the whole vocabulary. Each row decides that for itself: its token must not depend on the
rows beside it. Of equally likely tokens the one with the lower id comes first, in all three.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

CANDIDATES = 1024
"""The likeliest tokens that are looked at first."""

FEW_CANDIDATES = 64
"""The same of a row with a top_k of no more: to find them takes a third of the time."""

UNDECIDED = -1
"""In place of a token that the candidates do not decide."""


@dataclass(slots=True)
class RowSampling:
    """How one row is sampled. `top_k` 0 and `top_p` 1 leave all tokens in; temperature 0 takes the likeliest.

    The random numbers are the row's own, drawn on the CPU, one for each token: a seed gives the same numbers alone, in
    any batch and on any device. What may still differ is the rounding of a kernel at another batch size.
    Nothing changes here before `accept`, so a step that fails may be tried again.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    random: random.Random
    draw: float = field(init=False)  # in [0, 1): decides on the next token
    _following: deque[float] = field(init=False, default_factory=deque)  # drawn already, for the tokens after it

    @classmethod
    def greedy(cls) -> RowSampling:
        """The likeliest token each time, with nothing left to chance."""
        return cls(0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, random=random.Random(0))

    def __post_init__(self) -> None:
        self.draw = self.random.random()

    def accept(self) -> None:
        """The choice was taken; draw the number for the next one."""
        self.draw = self._following.popleft() if self._following else self.random.random()

    def draws(self, tokens: int) -> list[float]:
        """The numbers that decide on the next so many tokens."""
        while len(self._following) < tokens - 1:
            self._following.append(self.random.random())
        return [self.draw, *islice(self._following, tokens - 1)]


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
            own = [at for at, row in enumerate(rows) if row.temperature and few == (0 < row.top_k <= FEW_CANDIDATES)]
            if own:
                self._sampling[few] = torch.tensor(own, device=device)

    def draw(self, draws: Sequence[float] = ()) -> None:
        """Copy the rows' random numbers to the device, or `draws` in their place. Before the forward, because the copy
        waits for what runs."""
        if self._sampling:
            numbers = draws or [row.draw for row in self._rows]
            self._draws = torch.tensor(numbers, device=self._device)[:, None]

    def choose(self, logits: torch.Tensor) -> Choice:
        """One token for each row of `logits` [rows, vocabulary]. Does not wait for the device."""
        for few, own in self._sampling.items():
            if len(own) == len(logits):
                return Choice(_sample_likeliest(logits, self._parameters, self._draws, few), logits, self)
        tokens = _likeliest(logits)
        for few, own in self._sampling.items():
            sampled = _sample_likeliest(logits[own], self._parameters[own], self._draws[own], few)
            tokens.index_copy_(0, own, sampled)
        return Choice(tokens, logits, self)

    def _decide(self, logits: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        """Tokens [rows] of the rows of these numbers, from their whole vocabulary."""
        own = torch.tensor(numbers, device=self._device)
        return _sample_vocabulary(logits[own], self._parameters[own], self._draws[own])


class Choice:
    """The tokens [rows] that were chosen from logits [rows, vocabulary], on their device."""

    def __init__(self, tokens: torch.Tensor, logits: torch.Tensor, sampler: BatchSampler) -> None:
        self.tokens = tokens
        self._logits = logits
        self._sampler = sampler

    def read(self) -> list[int]:
        """Wait for the tokens: one copy to the host. Another where some are still to be decided, which is rare."""
        tokens: list[int] = self.tokens.tolist()
        undecided = [number for number, token in enumerate(tokens) if token == UNDECIDED]
        if undecided:
            with torch.inference_mode():
                decided = self._sampler._decide(self._logits, undecided)
                self.tokens.index_copy_(0, torch.tensor(undecided, device=decided.device), decided)
            for number, token in zip(undecided, decided.tolist(), strict=True):
                tokens[number] = token
        return tokens


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


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The first of the likeliest tokens of each row of `logits` [rows, vocabulary]."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    # In a tenth of the time that torch takes: 262,144 tokens of 16 rows are 0.6 ms, not 8.
    return torch.from_numpy(logits.numpy().argmax(-1))


def _largest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of each row of `values` [rows, vocabulary] and their places, both [rows, count] in falling
    order; equals in any order. `count` is no more than the vocabulary."""
    if values.device.type != "cpu":
        found = torch.topk(values, count)
        return found.values, found.indices
    # torch takes three times as long, and five times with a large vocabulary. At least `count` columns of this table
    # hold a value that is no less than the bound, so what is less is none of the largest.
    numbers = values.numpy()
    rows, vocabulary = numbers.shape
    height = math.isqrt(vocabulary // count)
    width = vocabulary // height
    columns = numbers[:, : height * width].reshape(rows, height, width).max(1)
    bounds = np.partition(columns, -count)[:, -count]
    largest, places = np.empty((rows, count), numbers.dtype), np.empty((rows, count), np.int64)
    for row, own in enumerate(numbers):
        large = np.flatnonzero(~(own < bounds[row]))  # with those that are no number
        places[row] = large[np.argsort(-own[large])[:count]]
        largest[row] = own[places[row]]
    return torch.from_numpy(largest), torch.from_numpy(places)


def _sample_likeliest(logits: torch.Tensor, parameters: torch.Tensor, draws: torch.Tensor, few: bool) -> torch.Tensor:
    """A token for each row of `logits` [rows, vocabulary] from its CANDIDATES likeliest, or from its FEW_CANDIDATES
    where top_k keeps no more of any row; UNDECIDED where they do not decide.

    They decide in two cases. All tokens that top_k, top_p and min_p keep are among them. Or every token is kept, and
    the row's number falls within their share of the probability.
    """
    vocabulary = logits.shape[1]
    candidates = FEW_CANDIDATES if few else CANDIDATES
    if vocabulary <= candidates:
        return _sample_vocabulary(logits, parameters, draws)
    temperature, top_k, top_p, min_p, _ = parameters.split(1, dim=1)
    scaled = logits / temperature
    likeliest, ids = _largest(scaled, candidates)
    values = _mask_beyond(likeliest, top_k)
    within_top_k = top_k <= candidates
    # The probabilities of the tokens that top_k keeps sum to 1. Those are the candidates, or the whole vocabulary.
    total = values.logsumexp(-1, keepdim=True)
    if not few:
        total = torch.where(within_top_k, total, scaled.logsumexp(-1, keepdim=True))
    probabilities = (values - total).exp()
    dropped = _dropped(probabilities, top_p, min_p)
    count = (~dropped).sum(-1, keepdim=True)
    cumulative = probabilities.masked_fill(dropped, 0).cumsum(-1)
    share = cumulative[:, -1:]
    all_seen = (count < candidates) | within_top_k
    target = draws * torch.where(all_seen, share, 1.0)
    keeps_all = (top_p == 1) & (min_p == 0)
    decided = all_seen | (keeps_all & (target < share))
    decided &= within_top_k | (top_k >= vocabulary)  # a larger top_k keeps tokens whose sum is not known here
    chosen = _first_over(cumulative, target, count)
    value = likeliest.gather(1, chosen)
    decided &= value > likeliest[:, -1:]  # equals of the last candidate may be no candidates
    # topk has equals in any order: find the chosen one of them in the order of their ids.
    before = (likeliest > value).sum(-1, keepdim=True)
    equals = ids.masked_fill(likeliest != value, vocabulary).sort().values
    return torch.where(decided, equals.gather(1, chosen - before), UNDECIDED)[:, 0]


def _sample_vocabulary(logits: torch.Tensor, parameters: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """A token for each row of `logits` [rows, vocabulary], whatever its parameters."""
    temperature, top_k, top_p, min_p, _ = parameters.split(1, dim=1)
    scaled = logits / temperature
    values, ids = scaled.sort(descending=True, stable=True)  # stable: equals stay in the order of their ids
    values = _mask_beyond(values, top_k)
    probabilities = (values - values.logsumexp(-1, keepdim=True)).exp()
    dropped = _dropped(probabilities, top_p, min_p)
    count = (~dropped).sum(-1, keepdim=True)
    cumulative = probabilities.masked_fill(dropped, 0).cumsum(-1)
    return ids.gather(1, _first_over(cumulative, draws * cumulative[:, -1:], count))[:, 0]


def _mask_beyond(values: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """`values` [rows, tokens] in falling order, with minus infinity after the first `top_k`."""
    return values.masked_fill(torch.arange(values.shape[1], device=values.device)[None] >= top_k, -torch.inf)


def _dropped(probabilities: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    """Which tokens top_p and min_p drop, of `probabilities` [rows, tokens] in falling order. Never the first."""
    before = probabilities.cumsum(-1) - probabilities
    dropped = (before >= top_p) | (probabilities < probabilities[:, :1] * min_p)
    dropped |= probabilities == 0
    dropped[:, 0] = False
    return dropped


def _first_over(cumulative: torch.Tensor, target: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The place [rows, 1] of the first of the `count` kept tokens whose `cumulative` probability [rows, tokens] is over
    `target` [rows, 1]."""
    return (cumulative <= target).sum(-1, keepdim=True).minimum(count - 1)
