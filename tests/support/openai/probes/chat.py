"""Probes of chat completions. Helpers of the clients send what `create` sends, so they have its probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.openai.answers import (
    calls_trip,
    chunks,
    ends_by,
    has_logprobs,
    has_text,
    has_texts,
    has_usage,
    holds_trip,
    texts,
)
from tests.support.openai.probe import MethodProbes, Probe, refused

USER: Any = {"role": "user", "content": "春雨"}
TRIP_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["杭州", "苏州"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TRIP: dict[str, Any] = {"name": "trip", "description": "Plans a trip.", "parameters": TRIP_SCHEMA, "strict": True}
TOOL: dict[str, Any] = {"type": "function", "function": TRIP}
NAMED = {"type": "function", "function": {"name": "trip"}}
CALLING: dict[str, Any] = {"model": "caller", "max_tokens": 200, "stop": None}
"""The model that takes tools, and that has a token for each byte: the poet could not write JSON."""
ONCE = {**CALLING, "parallel_tool_calls": False}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
BASE: dict[str, Any] = {"model": "poet", "messages": [USER], "seed": 1, "stop": ["，", "。", "\n"]}
"""A text that ends by itself, for helpers refuse one that is cut off."""

COMMON = (
    Probe("audio", {"voice": "alloy", "format": "mp3"}),
    Probe("frequency_penalty", 1.5, has_text),
    Probe("function_call", "none", has_text),
    Probe("function_call", {"name": "trip"}),
    Probe("functions", [TRIP]),
    Probe("logit_bias", {"300": -100}, has_text),
    Probe("logprobs", True, has_logprobs(0)),
    Probe("max_completion_tokens", 100, has_text),
    Probe("max_tokens", 100, has_text),
    Probe(
        "messages", [{"role": "system", "content": "诗"}, USER, {"role": "assistant", "content": "好"}, USER], has_text
    ),
    Probe("messages", [{"role": "user", "content": [{"type": "text", "text": "春雨"}]}], has_text),
    Probe("messages", [{"role": "user", "content": [PICTURE]}]),
    Probe("metadata", {"of": "a test"}, has_text),
    Probe("modalities", ["text"], has_text),
    Probe("modalities", ["text", "audio"]),
    Probe("model", "poet", has_text),
    Probe("moderation", {"model": "omni-moderation-latest"}),
    Probe("n", 2, has_texts(2)),
    Probe("parallel_tool_calls", False, calls_trip, {"tools": [TOOL], "tool_choice": "required", **CALLING}),
    Probe("parallel_tool_calls", True, calls_trip, {"tools": [TOOL], "tool_choice": NAMED, **CALLING}),
    Probe("prediction", {"type": "content", "content": "春雨"}),
    Probe("presence_penalty", 1.5, has_text),
    Probe("prompt_cache_key", "a key", has_text),
    Probe("prompt_cache_options", {"mode": "implicit"}, has_text),
    Probe("prompt_cache_retention", "in_memory", has_text),
    Probe("reasoning_effort", "low", has_text),
    Probe("response_format", {"type": "text"}, has_text),
    Probe(
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "trip", "schema": TRIP_SCHEMA, "strict": True}},
        holds_trip,
        CALLING,
    ),
    Probe("safety_identifier", "somebody", has_text),
    Probe("seed", 7, has_text),
    Probe("service_tier", "auto", has_text),
    Probe("stop", ["，", "。"], lambda answer: has_text(answer) and not set(texts(answer)[0]) & set("，。")),
    Probe("store", False, has_text),
    Probe("store", True, has_text),
    Probe("temperature", 0, has_text),
    Probe("tool_choice", "none", has_text),
    Probe("tool_choice", "required", calls_trip, {"tools": [TOOL], **ONCE}),
    Probe("tool_choice", NAMED, calls_trip, {"tools": [TOOL], **CALLING}),
    Probe("tools", [TOOL], calls_trip, {"tool_choice": "required", **ONCE}),
    Probe("tools", [TOOL]),
    Probe("top_logprobs", 2, has_logprobs(2), {"logprobs": True}),
    Probe("top_p", 0.5, has_text),
    Probe("user", "somebody", has_text),
    Probe("verbosity", "medium", has_text),
    Probe("verbosity", "low"),
    Probe("web_search_options", {}),
)
OF_CREATE = (
    Probe("max_completion_tokens", 2, ends_by("length"), {"stop": None}),
    Probe("max_tokens", 2, ends_by("length"), {"stop": None}),
    Probe(
        "response_format",
        {"type": "json_object"},
        lambda answer: texts(answer)[0].lstrip().startswith("{"),
        {**CALLING, "max_tokens": 8},
    ),
    Probe("stream", True, lambda answer: len(chunks(answer)) > 2 and has_text(answer)),
    Probe("stream", False, has_text),
    Probe("stream_options", {"include_usage": True}, has_usage, {"stream": True}),
    Probe("stream_options", {"include_obfuscation": False}, has_text, {"stream": True}),
    Probe("extra_body", {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}, has_text),
    Probe("extra_body", {"chat_template_kwargs": {"enable_thinking": False}}, has_text),
    Probe(
        "extra_body",
        {"guided_regex": "[春雨]{4}"},
        lambda answer: set(texts(answer)[0]) <= {"春", "雨"},
        {"stop": None},
    ),
    Probe("extra_body", {"guided_choice": ["是", "否"]}, lambda answer: texts(answer)[0] in "是否", {"stop": None}),
    Probe("extra_headers", {"X-Request-ID": "a-test"}, has_text),
    Probe("extra_query", {"of": "a test"}, has_text),
    Probe("timeout", 60, has_text),
)
OF_HELPERS = (Probe("response_format", {"$trip": "chat"}, holds_trip, CALLING),)
OF_PARSE = (
    *OF_HELPERS,
    Probe("stream", False, has_text),
    Probe("stream_options", {"include_obfuscation": False}, has_text),
)
OF_STREAM = (*OF_HELPERS, Probe("stream", True, has_text), Probe("stream_options", {"include_usage": True}, has_usage))
RUN = {"$function": TOOL}
OF_RUN_TOOLS = (
    Probe("n", 1, calls_trip),
    Probe("response_format", {"type": "text"}, calls_trip),
    Probe("toolContext", {"of": "a test"}, calls_trip),
    Probe("stream", True, calls_trip),
    Probe("stream", False, calls_trip),
    Probe("stream_options", {"include_usage": True}, calls_trip, {"stream": True}),
)
RUN_TOOLS_BASE = {**BASE, **CALLING, "tools": [RUN], "tool_choice": NAMED}


def _run_tools() -> tuple[Probe, ...]:
    """Those of `create`, with a function that is always called, so that it is what they all end with."""
    probes = []
    for probe in COMMON:
        if probe.check is refused or probe.parameter in ("tools", "tool_choice", "response_format", "n"):
            continue
        more = {"logprobs": True} if "logprobs" in probe.more else {}
        changed = {"model": "caller"} if probe.parameter == "model" else {}
        value = changed.get(probe.parameter, probe.value)
        probes.append(replace(probe, value=value, check=calls_trip, more=more))
    not_done = [probe for probe in COMMON if probe.check is refused and probe.parameter != "tools"]
    own = [Probe("tools", [RUN], calls_trip), Probe("tool_choice", NAMED, calls_trip)]
    return (*probes, *not_done, *own, *OF_RUN_TOOLS)


ID = {"completion_id": "chatcmpl-1"}
METHODS = (
    MethodProbes("chat.completions.create", BASE, (*COMMON, *OF_CREATE)),
    MethodProbes("chat.completions.parse", BASE, (*COMMON, *OF_PARSE)),
    MethodProbes("chat.completions.stream", BASE, (*COMMON, *OF_STREAM)),
    MethodProbes("chat.completions.runTools", RUN_TOOLS_BASE, _run_tools(), python=False),
    MethodProbes("chat.completions.retrieve", ID, (Probe("completion_id", "chatcmpl-1"),)),
    MethodProbes("chat.completions.update", {**ID, "metadata": {}}, (Probe("completion_id", "chatcmpl-1"),)),
    MethodProbes("chat.completions.list", {}, (Probe("limit", 1),)),
    MethodProbes("chat.completions.delete", ID, (Probe("completion_id", "chatcmpl-1"),)),
    MethodProbes("chat.completions.messages.list", ID, (Probe("completion_id", "chatcmpl-1"),)),
)
