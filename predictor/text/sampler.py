"""The next token of every row of a batch, each with its own parameters and its own random numbers.

There are three cases. A row of temperature 0 is greedy. Any other row samples among its CANDIDATES likeliest tokens
where those are enough to decide, because sorting a whole vocabulary takes longer than a forward of a small model. Where
they are not, it samples from the whole vocabulary. Each row decides that for itself: its token must not depend on the
rows beside it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

CANDIDATES = 1024
"""The likeliest tokens that are looked at first."""


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
    seen: set[int] = field(default_factory=set)  # tokens of prompt and text, for the repetition penalty
    draw: float = field(init=False)  # in [0, 1): decides on the next token

    def __post_init__(self) -> None:
        self.draw = self.random.random()

    def accept(self, token: int) -> None:
        """`token` is part of the text; draw the number for the next one."""
        self.seen.add(token)
        self.draw = self.random.random()


def sample(logits: torch.Tensor, rows: Sequence[RowSampling]) -> list[int]:
    """One token id for each row of `logits` [rows, vocabulary], which may be changed."""
    logits = logits.float()
    _penalize_repetition(logits, rows)
    tokens = _greedy(logits)
    sampling = [number for number, row in enumerate(rows) if row.temperature > 0]
    if not sampling:
        return tokens
    undecided = []
    for number, token in zip(sampling, _sample_likeliest(logits[sampling], [rows[n] for n in sampling]), strict=True):
        if token is None:
            undecided.append(number)
        else:
            tokens[number] = token
    if undecided:
        drawn = _sample_vocabulary(logits[undecided], [rows[number] for number in undecided])
        for number, token in zip(undecided, drawn, strict=True):
            tokens[number] = token
    return tokens


def _penalize_repetition(logits: torch.Tensor, rows: Sequence[RowSampling]) -> None:
    """Make tokens that a row has seen less likely, in place: as transformers' RepetitionPenaltyLogitsProcessor."""
    for number, row in enumerate(rows):
        if row.repetition_penalty != 1 and row.seen:
            ids = torch.tensor(sorted(row.seen), device=logits.device)
            known = logits[number, ids]
            penalty = row.repetition_penalty
            logits[number, ids] = torch.where(known < 0, known * penalty, known / penalty)


def _greedy(logits: torch.Tensor) -> list[int]:
    return [int(token) for token in logits.argmax(-1).tolist()]


def _sample_likeliest(logits: torch.Tensor, rows: Sequence[RowSampling]) -> Sequence[int | None]:
    """A token for each row of `logits` [rows, vocabulary] from its CANDIDATES likeliest; None where they do not decide.

    They decide in two cases. All tokens that top_k, top_p and min_p keep are among them. Or every token is kept, and
    the row's number falls within their share of the probability.
    """
    vocabulary = logits.shape[1]
    if vocabulary <= CANDIDATES:
        return _sample_vocabulary(logits, rows)
    scaled = logits / _column([row.temperature for row in rows], logits)
    values, ids = torch.topk(scaled, CANDIDATES)
    top_k = _top_k(rows, logits)
    values = _mask_beyond(values, top_k)
    within_top_k = top_k <= CANDIDATES
    # The probabilities of the tokens that top_k keeps sum to 1. Those are the candidates, or the whole vocabulary.
    total = torch.where(within_top_k, values.logsumexp(-1, keepdim=True), scaled.logsumexp(-1, keepdim=True))
    probabilities = (values - total).exp()
    dropped = _dropped(probabilities, rows)
    count = (~dropped).sum(-1, keepdim=True)
    cumulative = probabilities.masked_fill(dropped, 0).cumsum(-1)
    share = cumulative[:, -1:]
    all_seen = (count < CANDIDATES) | within_top_k
    target = _column([row.draw for row in rows], logits) * torch.where(all_seen, share, 1.0)
    keeps_all = _column([float(row.top_p == 1 and row.min_p == 0) for row in rows], logits) > 0
    decided = all_seen | (keeps_all & (target < share))
    decided &= within_top_k | (top_k == vocabulary)  # a larger top_k keeps tokens whose sum is not known here
    tokens = _pick(ids, cumulative, target, count)
    return [token if known else None for token, known in zip(tokens, decided[:, 0].tolist(), strict=True)]


def _sample_vocabulary(logits: torch.Tensor, rows: Sequence[RowSampling]) -> list[int]:
    """A token for each row of `logits` [rows, vocabulary], whatever its parameters."""
    scaled = logits / _column([row.temperature for row in rows], logits)
    # Stable, so that the order of equals does not depend on the size of the batch.
    values, ids = scaled.sort(descending=True, stable=True)
    values = _mask_beyond(values, _top_k(rows, logits))
    probabilities = (values - values.logsumexp(-1, keepdim=True)).exp()
    dropped = _dropped(probabilities, rows)
    count = (~dropped).sum(-1, keepdim=True)
    cumulative = probabilities.masked_fill(dropped, 0).cumsum(-1)
    target = _column([row.draw for row in rows], logits) * cumulative[:, -1:]
    return _pick(ids, cumulative, target, count)


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    """[rows, 1]"""
    return torch.tensor(values, device=like.device)[:, None]


def _top_k(rows: Sequence[RowSampling], logits: torch.Tensor) -> torch.Tensor:
    """How many tokens top_k keeps of each row, [rows, 1]."""
    vocabulary = logits.shape[1]
    return _column([float(min(row.top_k, vocabulary) or vocabulary) for row in rows], logits)


def _mask_beyond(values: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """`values` [rows, tokens] in falling order, with minus infinity after the first `top_k`."""
    return values.masked_fill(torch.arange(values.shape[1], device=values.device)[None] >= top_k, -torch.inf)


def _dropped(probabilities: torch.Tensor, rows: Sequence[RowSampling]) -> torch.Tensor:
    """Which tokens top_p and min_p drop, of `probabilities` [rows, tokens] in falling order. Never the first."""
    before = probabilities.cumsum(-1) - probabilities
    dropped = (before >= _column([row.top_p for row in rows], probabilities)) | (
        probabilities < probabilities[:, :1] * _column([row.min_p for row in rows], probabilities)
    )
    dropped |= probabilities == 0
    dropped[:, 0] = False
    return dropped


def _pick(ids: torch.Tensor, cumulative: torch.Tensor, target: torch.Tensor, count: torch.Tensor) -> list[int]:
    """The first of the `count` kept tokens whose `cumulative` probability [rows, tokens] is over `target` [rows, 1]."""
    chosen = (cumulative <= target).sum(-1, keepdim=True).minimum(count - 1)
    return [int(token) for token in ids.gather(1, chosen)[:, 0].tolist()]
