"""What the bodies and answers of OpenAI's routes have in common.

Fields that clients send out of habit are accepted as long as they ask for what is done anyway. Fields that would change
the answer in a way that this server does not know are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from contract.fields import StrictModel
from contract.request import Sampling
from predictor.engine.events import TextFinished
from predictor.protocols.access import CACHE_SALT


def only(*neutral: object) -> Callable[[object], object]:
    """A validator that accepts None and the values `neutral`, which change nothing."""

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            raise ValueError(f"is not supported here; leave it out or send {json.dumps(neutral[0])}")
        return value

    return check


class StreamOptions(StrictModel):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextRequest(Sampling):
    """Fields of both text routes."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    cache_salt: Annotated[str | None, Field(pattern=CACHE_SALT)] = None  # vLLM's
    n: Annotated[int | None, AfterValidator(only(1))] = None
    presence_penalty: Annotated[float | None, AfterValidator(only(0))] = None
    frequency_penalty: Annotated[float | None, AfterValidator(only(0))] = None
    logit_bias: Annotated[dict[str, float] | None, AfterValidator(only({}))] = None

    @property
    def streams_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def fingerprint_member(fingerprint: str | None) -> dict[str, str]:
    """OpenAI's name of what decides the answer beside the request; left out where it is not known."""
    return {} if fingerprint is None else {"system_fingerprint": fingerprint}


def totals(ends: list[TextFinished], queue_s: float) -> dict[str, Any]:
    """OpenAI's usage of all texts together, and an extension that OpenAI's clients ignore: the seconds that the request
    was queued."""
    prompt_tokens = sum(end.prompt_tokens for end in ends)
    completion_tokens = sum(end.completion_tokens for end in ends)
    cached_tokens = sum(end.cached_tokens for end in ends)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return {"usage": usage, "timing": {"queue_s": queue_s}}
