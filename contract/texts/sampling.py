"""How the next token of a text is chosen."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from contract.fields import Seed, StopSequences, StrictModel, Temperature, TokenLimit, TopP
from contract.limits import LOGIT_BIASES, TOP_K, TOP_LOGPROBS


def _token_ids(bias: dict[str, float]) -> dict[str, float]:
    for token in bias:
        if not (token.isascii() and token.isdecimal() and len(token) <= 9):
            raise ValueError(f"must have ids of tokens as its names, and {token[:16]!r} is none")
    return bias


TopK = Annotated[int, Field(ge=-1, le=TOP_K)]
MinP = Annotated[float, Field(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Field(ge=0.01, le=10)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
LogitBias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=LOGIT_BIASES, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}),
    AfterValidator(_token_ids),
]
TopLogprobs = Annotated[int, Field(ge=0, le=TOP_LOGPROBS)]


class Sampling(StrictModel):
    """How to write. What is left out takes the model's own default."""

    max_tokens: TokenLimit | None = Field(default=None, description="Stop after this many tokens.")
    temperature: Temperature | None = Field(default=None, description="0 always takes the likeliest token.")
    top_p: TopP | None = Field(default=None, description="Sample from the likeliest tokens of this total probability.")
    top_k: TopK | None = Field(default=None, description="Sample from so many likeliest tokens; 0 and -1: from all.")
    min_p: MinP | None = Field(
        default=None, description="Leave out tokens that are less likely than this part of the likeliest one."
    )
    stop: StopSequences | None = Field(default=None, description="Stop before any of these texts (one or a list).")
    seed: Seed | None = Field(default=None, description="Same seed and same request: same result.")
    repetition_penalty: RepetitionPenalty | None = Field(
        default=None, description="Over 1, tokens of the prompt and of the text so far are less likely."
    )
    frequency_penalty: Penalty | None = Field(
        default=None, description="Over 0, tokens are less likely the more often the text has them so far."
    )
    presence_penalty: Penalty | None = Field(
        default=None, description="Over 0, tokens that the text has so far are less likely."
    )
    logit_bias: LogitBias | None = Field(
        default=None, description="What is added to the logits of tokens, by their ids; -100 forbids one."
    )
    top_logprobs: TopLogprobs | None = Field(
        default=None, description="Tell the log probability of each token, and so many likeliest ones in its place."
    )
