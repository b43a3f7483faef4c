"""The events of an OpenAI-style completion stream, as far as they are read here."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from web.client.failures import unusable_event


class Delta(BaseModel):
    """A piece of text; the first one of a stream has a role and none."""

    content: str | None = None


class Choice(BaseModel):
    """Only one is asked for."""

    delta: Delta
    finish_reason: str | None = None


class ChunkUsage(BaseModel):
    """Runtimes add totals and details of their own, so the contract's strict Usage would not do here."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class ChunkTiming(BaseModel):
    """Our own predictor's extension."""

    queue_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Chunk(BaseModel):
    """One event of an OpenAI-style stream; members that nobody here asks about are ignored."""

    choices: list[Choice]
    usage: ChunkUsage | None = None
    timing: ChunkTiming | None = None


def parse_chunk(url: str, data: bytes) -> Chunk:
    """A chunk; or the problem that this event is instead of one."""
    try:
        return Chunk.model_validate_json(data)
    except ValidationError:
        raise unusable_event(url, data) from None
