"""How one row of a batch is sampled."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from predictor.text.sampling.constraint import Constraint


@dataclass(slots=True)
class RowSampling:
    """How one row is sampled. `top_k` 0 and `top_p` 1 leave all tokens in; temperature 0 takes the likeliest.

    The random numbers are the row's own, drawn on the CPU, one for each token: a seed gives the same numbers alone, in
    any batch and on any device. What may still differ is the rounding of a kernel at another batch size.
    Nothing changes here before `accept`, so a step that fails may be tried again.
    `frequency_penalty` and `presence_penalty` are OpenAI's, `logit_bias` is what is added to the logits of tokens,
    `top_logprobs` how many of the likeliest tokens are told beside each (None tells nothing). `constraint` holds the
    text to a structure.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    random: random.Random
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    constraint: Constraint | None = None
    draw: float = field(init=False)  # in [0, 1): decides on the next token
    _following: deque[float] = field(init=False, default_factory=deque)  # drawn already, for the tokens after it

    @classmethod
    def greedy(cls) -> RowSampling:
        """The likeliest token each time, with nothing left to chance."""
        return cls(0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, random=random.Random(0))

    def __post_init__(self) -> None:
        self.draw = self.random.random()

    def accept(self, token: int) -> None:
        """This token was taken; draw the number for the next one."""
        if self.constraint is not None:
            self.constraint.accept(token)
        self.draw = self._following.popleft() if self._following else self.random.random()

    @property
    def depends_on_text(self) -> bool:
        """Whether the choice depends on the tokens before it, beside the logits."""
        return self.repetition_penalty != 1 or self.counts or self.constraint is not None

    @property
    def counts(self) -> bool:
        """Whether the choice depends on how often the text has each token."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0

    def draws(self, tokens: int) -> list[float]:
        """The numbers that decide on the next so many tokens."""
        while len(self._following) < tokens - 1:
            self._following.append(self.random.random())
        return [self.draw, *islice(self._following, tokens - 1)]
