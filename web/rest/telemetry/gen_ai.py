"""OpenTelemetry's semantic conventions of generative AI, version 1.37, for whoever opts in to them.

They are experimental there: OTEL_SEMCONV_STABILITY_OPT_IN must hold `gen_ai_latest_experimental`. Prompts and answers
are written only where OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so, too.
"""

from __future__ import annotations

import json
import os
from typing import Any

from contract import GenerationRequest, Kind, ResultEvent
from wire.telemetry.generation import GenerationTelemetry
from wire.telemetry.tracing import is_sampled

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_NAMES = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}


def opted_in() -> bool:
    if not is_sampled():
        return False
    chosen = os.environ.get(OPT_IN, "").split(",")
    return "gen_ai_latest_experimental" in (one.strip() for one in chosen)


def captures_content() -> bool:
    return os.environ.get(CAPTURE, "").lower() in ("true", "span_only", "span_and_event")


def describe_request(telemetry: GenerationTelemetry, request: GenerationRequest, kind: Kind) -> None:
    """Attributes of its span, and its name."""
    if not opted_in():
        return
    operation = "chat" if request.messages is not None else "text_completion"
    operation = "generate_content" if kind == "image" else operation
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "shangcai",
        "gen_ai.request.model": telemetry.model,
    }
    for field, name in _NAMES.items():
        value = getattr(request, field, None)
        if value is not None:
            attributes[name] = value
    if captures_content():
        asked: list[Any] = list(request.messages or ()) or [{"role": "user", "content": request.prompt}]
        attributes["gen_ai.input.messages"] = json.dumps([_message(one) for one in asked], ensure_ascii=False)
    telemetry.attributes |= attributes
    telemetry.name = f"{operation} {telemetry.model}"


def describe_result(telemetry: GenerationTelemetry, result: ResultEvent) -> None:
    if not opted_in():
        return
    telemetry.attributes |= {
        "gen_ai.response.id": result.id,
        "gen_ai.response.model": result.model,
        "gen_ai.response.finish_reasons": [result.finish_reason],
        "gen_ai.usage.input_tokens": result.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": result.usage.completion_tokens,
    }
    if captures_content():
        answer = {"role": "assistant", "content": result.text}
        message = {**_message(answer), "finish_reason": result.finish_reason}
        telemetry.attributes["gen_ai.output.messages"] = json.dumps([message], ensure_ascii=False)


def _message(message: Any) -> dict[str, Any]:
    """As the conventions write one: a role, and parts."""
    document = message if isinstance(message, dict) else message.model_dump(exclude_none=True)
    return {"role": document["role"], "parts": [{"type": "text", "content": document.get("content")}]}
