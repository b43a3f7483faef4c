"""Texts that call functions as grammars: words as they come, and calls to the letter of their format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from predictor.engine.tasks import Lark, OfferedTools, PlacedSchema
from predictor.text.output.tool_format import ToolFormat
from predictor.text.structure.grammar import json_of, quoted, verbatim

ANYTHING = "(?s:.*)"


def tool_rules(form: ToolFormat, tools: OfferedTools) -> Lark:
    """Those of an `answer`."""
    first = verbatim(form.first, form.hidden)
    lines = [] if tools.required else _words_or_calls(form)
    if tools.required:
        lines = [f"answer: {first} calls"]
    names = [f"call_{number}" for number in range(len(tools.callable))]
    more = "" if form.following is None or not tools.several else f" ({verbatim(form.following, form.hidden)} call)*"
    lines += [f"calls: call{more} {verbatim(form.last, form.hidden)}", f"call: {' | '.join(names)}"]
    middle = verbatim(form.middle, form.hidden)
    places = {tool["function"]["name"]: number for number, tool in enumerate(tools.described)}
    schemas = []
    for name, function in zip(names, tools.callable, strict=True):
        field = f"tools.{places[function.name]}.function.parameters"
        schemas.append(PlacedSchema(function.parameters or {}, field, rule=name))
        lines.append(f"{name}: {quoted(function.name)} {middle} %json {json_of(arguments_schema(function.parameters))}")
    return Lark("\n".join(lines), tuple(schemas))


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments are an object in any case, and a function that names some takes no others, unless it says so."""
    schema = {**(parameters or {}), "type": "object"}
    if "properties" in schema and not _COMPOSED & schema.keys():
        schema.setdefault("additionalProperties", False)
    return schema


_COMPOSED = {"$ref", "allOf", "anyOf", "if", "oneOf", "patternProperties", "unevaluatedProperties"}
"""Keywords by which a schema may name more."""


def _words_or_calls(form: ToolFormat) -> list[str]:
    """Where a trigger is a special token, it is in no words by itself."""
    first = verbatim(form.first, form.hidden)
    if not form.trigger:
        # A text that begins as an object does is a call.
        return [f"answer: WORDS | {first} calls", f"WORDS: /\\s*([^{{\\s]{ANYTHING})?/"]
    if form.trigger in form.hidden.values():
        return [f"answer: WORDS | WORDS {first} calls", f"WORDS: /{ANYTHING}/"]
    trigger, rest = quoted(form.trigger), verbatim(form.first.removeprefix(form.trigger), form.hidden)
    escaped = re.escape(form.trigger).replace("/", "\\/")
    return [
        f"answer: WORDS | begun {rest} calls",
        f"begun[lazy]: /{ANYTHING}/ {trigger}",
        f"WORDS: /{ANYTHING}/ & ~/{ANYTHING}{escaped}{ANYTHING}/",
    ]
