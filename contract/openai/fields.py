"""What the bodies and answers of OpenAI's text routes have in common.

Fields that clients send out of habit are accepted as long as they ask for what is done anyway. Fields that would change
the answer in a way that this server does not know are refused by name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from contract.callers import CACHE_SALT
from contract.fields import StrictModel
from contract.limits import PROMPTS
from contract.request import GenerationRequest
from contract.result import Usage
from contract.texts.sampling import Sampling

SAMPLING = frozenset(Sampling.model_fields) - {"top_logprobs"}
"""The fields of Sampling that mean the same in OpenAI's bodies."""

SEEDS = 2**63


class StreamOptions(StrictModel):
    include_obfuscation: bool | None = None


class UsageOptions(StreamOptions):
    include_usage: bool | None = None


class TextRequest(Sampling):
    """Fields of both text routes."""

    model: str
    stream: bool | None = None
    stream_options: UsageOptions | None = None
    user: str | None = None
    cache_salt: Annotated[str | None, Field(pattern=CACHE_SALT)] = None  # vLLM's
    n: Annotated[int | None, Field(ge=1, le=PROMPTS)] = None

    @property
    def streams_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    @abstractmethod
    def names(self) -> dict[str, str]:
        """What this body calls the fields of its requests that have another name there."""

    @property
    @abstractmethod
    def requests(self) -> list[GenerationRequest]:
        """One for each text that is asked for, in the order of the choices."""

    def _each(self, fields: dict[str, Any]) -> list[GenerationRequest]:
        """The `n` requests of these fields and of those of the sampling; each has the next seed."""
        shared = {"model": self.model, "stream": bool(self.stream), **self._sampling, **fields}
        given = {name: value for name, value in shared.items() if value is not None}
        request = GenerationRequest.model_validate(given)
        if (self.n or 1) == 1:
            return [request]
        seeds = [None if self.seed is None else (self.seed + number) % SEEDS for number in range(self.n or 1)]
        return [request.model_copy(update={"seed": seed}) for seed in seeds]

    @property
    def _sampling(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SAMPLING}


def fingerprint_member(fingerprint: str | None) -> dict[str, str]:
    """OpenAI's name of what decides the answer beside the request; left out where it is not known."""
    return {} if fingerprint is None else {"system_fingerprint": fingerprint}


def totals(usages: Sequence[Usage], queue_s: float | None) -> dict[str, Any]:
    """OpenAI's usage of all texts together, and an extension that OpenAI's clients ignore: the seconds that the request
    was queued."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages)
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    cached_tokens = sum(usage.cached_tokens or 0 for usage in usages)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return {"usage": usage, "timing": {"queue_s": queue_s}}
