"""The next token of every row of a batch, each with its own parameters and its own random numbers."""

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

    The random numbers are the row's own and drawn on the CPU, one a token: so a seed gives the same numbers alone, in
    any batch and on any device. What remains different is the rounding of a kernel that is given another batch size.
    Nothing here changes until a token is `took`, so a step that fails may be tried again.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    random: random.Random
    seen: set[int] = field(default_factory=set)  # prompt and text so far, for the repetition penalty
    draw: float = field(init=False)  # decides on the next token

    def __post_init__(self) -> None:
        self.draw = self.random.random()

    def took(self, token: int) -> None:
        """`token` is written; the next one is decided by a new number."""
        self.seen.add(token)
        self.draw = self.random.random()


def sample(logits: torch.Tensor, rows: Sequence[RowSampling]) -> list[int]:
    """One token id for each row of `logits` [rows, vocabulary], which may be changed."""
    logits = logits.float()
    for row, sampling in enumerate(rows):
        if sampling.repetition_penalty != 1 and sampling.seen:
            ids = torch.tensor(sorted(sampling.seen), device=logits.device)
            known = logits[row, ids]
            penalty = sampling.repetition_penalty
            logits[row, ids] = torch.where(known < 0, known * penalty, known / penalty)
    tokens: list[int | None] = [int(token) for token in logits.argmax(-1).tolist()]
    random_rows = [number for number, row in enumerate(rows) if row.temperature > 0]
    # Sorting a whole vocabulary takes longer than many a model. It is done only for rows that may go beyond the
    # likeliest CANDIDATES tokens, which is for each row to say by itself: its choice must not depend on its neighbours.
    for candidates in (min(CANDIDATES, logits.shape[1]), logits.shape[1]):
        if random_rows:
            drawn = _draw(logits[random_rows], [rows[number] for number in random_rows], candidates)
            for number, token in zip(random_rows, drawn, strict=True):
                tokens[number] = token
            random_rows = [number for number in random_rows if tokens[number] is None]
    return [token for token in tokens if token is not None]


def _draw(logits: torch.Tensor, rows: Sequence[RowSampling], candidates: int) -> list[int | None]:
    """A token for each row from its likeliest `candidates`; None where those are not enough to decide."""

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=logits.device)[:, None]

    vocabulary = logits.shape[1]
    scaled = logits / column([row.temperature for row in rows])
    # Stable, so that the order of equals does not depend on the size of the batch.
    in_order = torch.topk(scaled, candidates) if candidates < vocabulary else scaled.sort(descending=True, stable=True)
    limits = column([float(min(row.top_k, vocabulary) or vocabulary) for row in rows])
    values = in_order[0].masked_fill(torch.arange(candidates, device=logits.device)[None] >= limits, -torch.inf)
    whole = scaled.logsumexp(-1, keepdim=True)
    probabilities = (values - torch.where(limits <= candidates, values.logsumexp(-1, keepdim=True), whole)).exp()
    before = probabilities.cumsum(-1) - probabilities
    dropped = (before >= column([row.top_p for row in rows])) | (
        probabilities < probabilities[:, :1] * column([row.min_p for row in rows])
    )
    dropped |= probabilities == 0
    dropped[:, 0] = False
    kept = (~dropped).sum(-1, keepdim=True)  # they come first, for the probabilities fall
    cumulative = probabilities.masked_fill(dropped, 0).cumsum(-1)
    # All that is kept is in sight, or it is known to be all there is.
    in_sight = (kept < candidates) | (limits <= candidates)
    everything = column([float(row.top_p == 1 and row.min_p == 0) for row in rows]) > 0
    target = column([row.draw for row in rows]) * torch.where(in_sight, cumulative[:, -1:], 1.0)
    decided = in_sight | (everything & (target < cumulative[:, -1:]))
    decided &= (limits <= candidates) | (limits == vocabulary)  # else what is sampled from is not known here
    chosen = (cumulative <= target).sum(-1, keepdim=True).minimum(kept - 1)
    tokens = in_order[1].gather(1, chosen)[:, 0].tolist()
    return [int(token) if known else None for token, known in zip(tokens, decided[:, 0].tolist(), strict=True)]
