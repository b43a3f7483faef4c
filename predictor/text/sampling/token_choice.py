"""Tokens of rows with the same parameters or others: greedily, from the likeliest ones, or from the whole vocabulary.

There are three cases. A row of temperature 0 is greedy. Any other row samples among its likeliest tokens
where those are enough to decide, because sorting a whole vocabulary takes longer than a forward of a small model. Where
they are not, it samples from the whole vocabulary. Each row decides that for itself: its token must not depend on the
rows beside it. Of equally likely tokens the one with the lower id comes first, in all three.
"""

from __future__ import annotations

import math

import numpy as np
import torch

CANDIDATES = 1024
"""The likeliest tokens that are looked at first."""

FEW_CANDIDATES = 64
"""The same of a row with a top_k of no more: to find them takes a third of the time."""

UNDECIDED = -1
"""In place of a token that the candidates do not decide."""


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The first of the likeliest tokens of each row of `logits` [rows, vocabulary]."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    # In a tenth of the time that torch takes: 262,144 tokens of 16 rows are 0.6 ms, not 8.
    return torch.from_numpy(logits.numpy().argmax(-1))


def largest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
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


def sample_likeliest(logits: torch.Tensor, parameters: torch.Tensor, draws: torch.Tensor, few: bool) -> torch.Tensor:
    """A token for each row of `logits` [rows, vocabulary] from its CANDIDATES likeliest, or from its FEW_CANDIDATES
    where top_k keeps no more of any row; UNDECIDED where they do not decide.

    They decide in two cases. All tokens that top_k, top_p and min_p keep are among them. Or every token is kept, and
    the row's number falls within their share of the probability.
    """
    vocabulary = logits.shape[1]
    candidates = FEW_CANDIDATES if few else CANDIDATES
    if vocabulary <= candidates:
        return sample_vocabulary(logits, parameters, draws)
    temperature, top_k, top_p, min_p, _ = parameters.split(1, dim=1)
    scaled = logits / temperature
    likeliest, ids = largest(scaled, candidates)
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


def sample_vocabulary(logits: torch.Tensor, parameters: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
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
