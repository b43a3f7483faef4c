"""The next token of every row of a batch, each with its own parameters and its own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


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
    likeliest = [int(token) for token in logits.argmax(-1).tolist()]
    if all(row.temperature == 0 for row in rows):
        return likeliest

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=logits.device)[:, None]

    vocabulary = logits.shape[1]
    most = [1 if row.temperature == 0 else min(row.top_k, vocabulary) or vocabulary for row in rows]
    scaled = logits / column([row.temperature or 1.0 for row in rows])
    values, ids = torch.topk(scaled, max(most)) if max(most) < vocabulary else _sorted(scaled)
    rank = torch.arange(values.shape[1], device=logits.device)[None]
    values = values.masked_fill(rank >= column([float(count) for count in most]), -torch.inf)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = (before >= column([row.top_p for row in rows])) | (
        probabilities < probabilities[:, :1] * column([row.min_p for row in rows])
    )
    dropped |= probabilities == 0
    dropped[:, 0] = False
    kept = (~dropped).sum(-1, keepdim=True)  # they come first, for the probabilities fall
    cumulative = probabilities.masked_fill(dropped, 0).cumsum(-1)
    draw = column([row.draw for row in rows]) * cumulative[:, -1:]
    chosen = (cumulative <= draw).sum(-1, keepdim=True).minimum(kept - 1)
    sampled = [int(token) for token in ids.gather(1, chosen)[:, 0].tolist()]
    # Among equals, sorting may put another one first than argmax does, which is what a greedy row gets alone.
    return [likeliest[at] if row.temperature == 0 else sampled[at] for at, row in enumerate(rows)]


def _sorted(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Stable, so that the order of equals does not depend on the size of the batch."""
    in_order, ids = torch.sort(values, descending=True, stable=True)
    return in_order, ids
