"""Requests as jobs keep them, beside replicas of another version."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from contract.request import GenerationRequest

_KNOWN_BEFORE = frozenset(
    {
        "format",
        "guidance",
        "kind",
        "max_tokens",
        "model",
        "n",
        "negative_prompt",
        "previews",
        "prompt",
        "seed",
        "size",
        "steps",
        "stop",
        "temperature",
        "thinking",
        "top_p",
    }
)
"""The fields that replicas of commit bcaa36b know. They ignore others, and would make something else."""

ENVELOPE = "newer"


def stored_request(request: GenerationRequest) -> str:
    """JSON of a request. One that has newer fields is put where older replicas do not find it: their attempt fails, and
    one of this version tries again. The address of a webhook is web's business alone: no predictor gets it."""
    fields: dict[str, Any] = request.model_dump(mode="json", exclude={"stream", "webhook"}, exclude_none=True)
    return to_json(fields if fields.keys() <= _KNOWN_BEFORE else {ENVELOPE: fields}).decode()


def request_of(document: str | bytes) -> GenerationRequest:
    """The request of a `stored_request`, of any version."""
    return GenerationRequest.of_any_version(event_data(document))


def event_data(document: str | bytes) -> bytes:
    """The data of the event that asks a predictor for the same."""
    stored = from_json(document)
    return to_json(stored.get(ENVELOPE, stored))
