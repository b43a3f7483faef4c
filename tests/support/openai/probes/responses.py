"""Probes of responses. Helpers of the clients send what `create` sends, so they have its probes."""

from __future__ import annotations

from typing import Any

from tests.support.openai.answers import (
    is_trip,
    responded,
    response_calls_trip,
    response_text,
    says,
)
from tests.support.openai.probe import MethodProbes, Probe
from tests.support.openai.probes.chat import TRIP, TRIP_SCHEMA

BASE: dict[str, Any] = {"model": "poet", "input": "春雨", "max_output_tokens": 4}
TOOL: dict[str, Any] = {"type": "function", **TRIP}
NAMED = {"type": "function", "name": "trip"}
WRITING: dict[str, Any] = {"model": "caller", "max_output_tokens": 200}
CALLING: dict[str, Any] = {**WRITING, "tools": [TOOL]}
ONCE = {**CALLING, "parallel_tool_calls": False}
EARLIER = {"$response": BASE}
LONG = {"$begun": {**BASE, "max_output_tokens": 200, "background": True}}
SCHEMA_FORMAT = {"type": "json_schema", "name": "trip", "schema": TRIP_SCHEMA, "strict": True}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
LOGPROBS = "message.output_text.logprobs"

has_text = lambda answer: bool(response_text(answer))  # noqa: E731


def _holds_trip(answer: Any) -> bool:
    return is_trip(response_text(answer))


def _has_logprobs(answer: Any) -> bool:
    [message] = responded(answer)["output"]
    return bool(message["content"][0]["logprobs"])


COMMON = (
    Probe("access_programs", {"cyber": "standard"}),
    Probe("background_options", {"completion_window": "2h"}),
    Probe("context_management", [{"type": "compaction"}]),
    Probe("conversation", "conv_1"),
    Probe("image", {"context_compression": "auto"}),
    Probe("include", [LOGPROBS], _has_logprobs),
    Probe("include", ["file_search_call.results"]),
    Probe("input", "春雨", has_text),
    Probe("input", [{"role": "user", "content": [{"type": "input_text", "text": "春雨"}]}], has_text),
    Probe("input", [{"role": "user", "content": [PICTURE]}]),
    Probe("instructions", "写诗", has_text),
    Probe("max_output_tokens", 2, says(status="incomplete")),
    Probe("max_tool_calls", 1, has_text),
    Probe("metadata", {"of": "a test"}, says(metadata={"of": "a test"})),
    Probe("model", "poet", has_text),
    Probe("moderation", {"model": "omni-moderation-latest"}),
    Probe("parallel_tool_calls", False, response_calls_trip, {"tool_choice": "required", **CALLING}),
    Probe("previous_response_id", EARLIER, has_text),
    Probe("prompt", {"id": "pmpt_1"}),
    Probe("prompt_cache_key", "a key", has_text),
    Probe("prompt_cache_options", {"mode": "implicit"}, has_text),
    Probe("prompt_cache_retention", "in_memory", has_text),
    Probe("reasoning", {"effort": "low"}, has_text),
    Probe("reasoning", {"summary": "detailed"}),
    Probe("safety_identifier", "somebody", has_text),
    Probe("service_tier", "auto", has_text),
    Probe("store", True, says(store=True)),
    Probe("store", False, says(store=False)),
    Probe("temperature", 0, has_text),
    Probe("text", {"format": {"type": "text"}}, has_text),
    Probe("text", {"format": SCHEMA_FORMAT}, _holds_trip, WRITING),
    Probe("text", {"verbosity": "low"}),
    Probe("tool_choice", "none", has_text),
    Probe("tool_choice", "required", response_calls_trip, ONCE),
    Probe("tool_choice", NAMED, response_calls_trip, CALLING),
    Probe("tools", [TOOL], response_calls_trip, {**ONCE, "tool_choice": "required"}),
    Probe("tools", [TOOL]),
    Probe("tools", [{"type": "web_search"}]),
    Probe("top_logprobs", 2, _has_logprobs, {"include": [LOGPROBS]}),
    Probe("top_p", 0.5, has_text),
    Probe("truncation", "disabled", has_text),
    Probe("truncation", "auto"),
    Probe("user", "somebody", has_text),
)
OF_CREATE = (
    Probe("background", True, lambda answer: answer["status"] in ("queued", "in_progress")),
    Probe("background", False, has_text),
    Probe("stream", True, has_text),
    Probe("stream", False, has_text),
    Probe("stream_options", {"include_obfuscation": False}, has_text, {"stream": True}),
)
OF_PARSE = (
    Probe("background", False, has_text),
    Probe("stream", False, has_text),
    Probe("stream_options", {"include_obfuscation": False}, has_text),
    Probe("text_format", {"$trip": "text"}, _holds_trip, WRITING),
    Probe("parse_as", {"$trip": "text"}, _holds_trip, {"text": {"format": SCHEMA_FORMAT}, **WRITING}),
    Probe("verbosity", "medium", has_text),
)
OF_STREAM = (
    Probe("background", True, has_text),
    Probe("background", False, has_text),
    Probe("stream", True, has_text),
    Probe("stream_options", {"include_obfuscation": False}, has_text),
    Probe("text_format", {"$trip": "text"}, _holds_trip, WRITING),
    Probe("response_id", LONG, has_text, {"model": None, "input": None, "max_output_tokens": None}),
    Probe(
        "starting_after", 1, has_text, {"response_id": LONG, "model": None, "input": None, "max_output_tokens": None}
    ),
)
ID = {"response_id": EARLIER}

METHODS = (
    MethodProbes("responses.create", BASE, (*COMMON, *OF_CREATE)),
    MethodProbes("responses.parse", BASE, (*COMMON, *OF_PARSE)),
    MethodProbes("responses.stream", BASE, (*COMMON, *OF_STREAM)),
    MethodProbes(
        "responses.retrieve",
        ID,
        (
            Probe("response_id", EARLIER, has_text),
            Probe("include", [LOGPROBS], has_text),
            Probe("include_obfuscation", False, has_text, {"stream": True}),
            Probe("starting_after", 1, has_text, {"stream": True, "response_id": LONG}),
            Probe("stream", True, has_text, {"response_id": LONG}),
            Probe("stream", False, has_text),
        ),
    ),
    MethodProbes("responses.cancel", {}, (Probe("response_id", LONG, bool),)),
    MethodProbes("responses.delete", {}, (Probe("response_id", EARLIER, lambda _: True),)),
    MethodProbes(
        "responses.input_items.list",
        ID,
        (
            Probe("response_id", EARLIER, lambda answer: len(answer["data"]) == 1),
            Probe("limit", 1, lambda answer: len(answer["data"]) == 1),
            Probe("order", "asc", lambda answer: len(answer["data"]) == 1),
            Probe("after", "item_none"),
            Probe("include", [LOGPROBS], lambda answer: len(answer["data"]) == 1),
        ),
        javascript="responses.inputItems.list",
    ),
    MethodProbes(
        "responses.input_tokens.count",
        {"model": "poet"},
        (Probe("input", "春雨"),),
        javascript="responses.inputTokens.count",
    ),
    MethodProbes("responses.compact", {"model": "poet"}, (Probe("input", "春雨"),)),
    MethodProbes("responses.connect", {}, (Probe("", None),), javascript=None),
)
