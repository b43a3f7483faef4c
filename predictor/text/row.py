"""A text in the running batch, and what its device knows of those that run."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch

from predictor.text.prompt_lookup import PromptLookup
from predictor.text.sampling.batch_sampler import BatchSampler
from predictor.text.sampling.log_probabilities import TokenLikelihood
from predictor.text.sampling.row_sampling import RowSampling


@dataclass(slots=True, eq=False)
class TextRow:
    """One text in the batch.

    `tokens` are the prompt and the text so far; the first `cached` of them are in the cache. `write` takes each new
    token and returns whether it was the last. `is_last` says so beforehand where that takes no text: not of all.
    `note_likelihood` is told before `write` how likely its token was, where the sampling asks for that.
    A row may begin with what others of the same `scope` have left in the cache; `note_reuse` is told how many tokens.
    """

    tokens: list[int]
    sampling: RowSampling
    write: Callable[[int], bool]
    is_last: Callable[[int], bool] = lambda _: False
    scope: Hashable | None = None
    note_reuse: Callable[[int], None] = lambda _: None
    note_likelihood: Callable[[TokenLikelihood], None] = lambda _: None
    prompt_tokens: int = field(init=False)
    lookup: PromptLookup = field(default_factory=PromptLookup)
    cached: int = 0
    done: bool = False
    failure: Exception | None = None
    _likelihood: TokenLikelihood | None = field(init=False, default=None)  # of the last token

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def ended(self) -> bool:
        return self.done or self.failure is not None

    @property
    def so_far(self) -> str:
        return f"{len(self.tokens)} tokens"

    def mask(self) -> torch.Tensor:
        """The tokens that its constraint allows next. What that raises is this row's failure, too."""
        assert self.sampling.constraint is not None
        try:
            return self.sampling.constraint.mask()
        except Exception as error:
            self.failure = error
            raise

    def take(self, token: int, likelihood: TokenLikelihood | None = None) -> None:
        """The text goes on with this token, which is to be written."""
        self._likelihood = likelihood
        self.cached = len(self.tokens)
        self.tokens.append(token)
        try:
            self.sampling.accept(token)
        except Exception as error:
            self.failure = error

    def write_last(self) -> None:
        """Write the last token, unless it has failed before that."""
        if self.failure is not None:
            return
        try:
            if self._likelihood is not None:
                self.note_likelihood(self._likelihood)
            self.done = self.write(self.tokens[-1])
        except Exception as error:
            self.failure = error


@dataclass(slots=True)
class Decoding:
    """Running rows on their device: their last tokens and the positions of those, both [rows]."""

    tokens: torch.Tensor
    positions: torch.Tensor
    sampler: BatchSampler

    @classmethod
    def of(cls, rows: list[TextRow], device: torch.device) -> Decoding:
        places = torch.tensor([[row.tokens[-1] for row in rows], [row.cached for row in rows]], device=device)
        return cls(places[0], places[1], BatchSampler([row.sampling for row in rows], device))
