"""The events of an OpenAI-style completion stream: the members that web reads."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from contract.limits import TOOLS
from web.client.failures import unusable_event
from web.rest.text_logprobs import ChoiceLogprobs


class DeltaFunction(BaseModel):
    """The name comes first; other servers may cut it off from the arguments, or send it whole each time."""

    name: str | None = None
    arguments: str | None = None


class DeltaToolCall(BaseModel):
    """A piece of a call."""

    index: int = Field(ge=0, lt=TOOLS)
    id: str | None = None
    function: DeltaFunction = DeltaFunction()


class Delta(BaseModel):
    """A piece of text. The first of a stream has a role and no text."""

    content: str | None = None
    tool_calls: list[DeltaToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The newer name of the same at vLLM."""


class Choice(BaseModel):
    """One of the completions; only one is asked for. A plain completion has its `text` here."""

    delta: Delta = Delta()
    text: str | None = None
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class PromptTokens(BaseModel):
    """Of a prompt's tokens, those that were not computed again."""

    cached_tokens: int | None = Field(default=None, ge=0)


class ChunkUsage(BaseModel):
    """Not the contract's strict Usage: runtimes add totals and details of their own."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    prompt_tokens_details: PromptTokens | None = None


class ChunkTiming(BaseModel):
    """Our own predictor's extension."""

    queue_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Chunk(BaseModel):
    """One event; other members are ignored."""

    choices: list[Choice]
    usage: ChunkUsage | None = None
    timing: ChunkTiming | None = None
    system_fingerprint: str | None = None


def parse_chunk(url: str, data: bytes) -> Chunk:
    """A chunk of the model server at `url`. Raises its problem where it is one, BAD_UPSTREAM where it is unusable."""
    try:
        return Chunk.model_validate_json(data)
    except ValidationError:
        raise unusable_event(url, data) from None
