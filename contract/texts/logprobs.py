"""How likely the tokens of a text were."""

from __future__ import annotations

from pydantic import Field

from contract.fields import StrictModel


class LikelyToken(StrictModel):
    """`logprob` is the natural logarithm of its probability before temperature, penalties, bias and structure; `bytes`
    is what it stands for in UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(LikelyToken):
    """A token of the text, and the likeliest in its place, the likeliest first."""

    top_logprobs: list[LikelyToken] = Field(default_factory=list)
