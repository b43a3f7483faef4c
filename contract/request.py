"""What a client asks for: the body of `POST /generate`."""

from __future__ import annotations

from pydantic import Field

from contract.fields import PromptText, Seed, StopSequences, StrictModel, Temperature, TokenLimit, TopP


class Sampling(StrictModel):
    """How to write. What is left out takes the model's own default."""

    max_tokens: TokenLimit | None = Field(default=None, description="Stop after this many tokens.")
    temperature: Temperature | None = Field(default=None, description="0 always takes the likeliest token.")
    top_p: TopP | None = Field(default=None, description="Sample from the likeliest tokens of this total probability.")
    stop: StopSequences | None = Field(default=None, description="Stop before any of these texts (one or a list).")
    seed: Seed | None = Field(default=None, description="Same seed and same request: same result.")


class TextPrompt(Sampling):
    """One thing to write."""

    prompt: PromptText = Field(description="What to write about, in any language.")


class GenerationRequest(TextPrompt):
    """One generation. Only `prompt` is required."""

    model: str | None = Field(default=None, description="Name of a served model; the first one when left out.")
    stream: bool = Field(default=False, description="Answer as server-sent events while the text is being written.")
