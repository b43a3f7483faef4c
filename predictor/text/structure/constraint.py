"""One text that is held to its structure, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from contract.problems import ProblemError, invalid_field
from predictor.text.structure.refusals import refusal

if TYPE_CHECKING:
    from llguidance import LLMatcher


class StructureConstraint:
    """A Constraint of predictor.text.sampling. `matcher` is its own; `field` is what the client calls the structure.

    Both methods raise a ProblemError where the text cannot go on: nothing that may follow is in the vocabulary, or the
    structure is too complex for LIMITS.
    """

    def __init__(self, matcher: LLMatcher, field: str) -> None:
        self._matcher = matcher
        self._field = field

    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def mask(self) -> torch.Tensor:
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise self._problem()
        return torch.frombuffer(bytearray(bits), dtype=torch.int32)

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise self._problem()

    def _problem(self) -> ProblemError:
        """The same text would end so again: the request is to be another one."""
        return invalid_field(self._field, f"the text cannot go on: it {refusal(self._matcher.get_error())}")
