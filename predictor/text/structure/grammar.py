"""Structures as grammars, in llguidance's dialect of Lark. https://github.com/guidance-ai/llguidance has its syntax."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from predictor.engine.tasks import Choice, JsonSchema, Lark, Regex, Structure
from predictor.text.output.reasoning import ReasoningTags

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""llguidance's options for the JSON of a schema: free white space never has to end."""

_OPTIONS = '%llguidance {"no_forcing": true}'  # else it calls the tokenizer where only one text can follow


def grammar(structure: Structure, reasoning: ReasoningTags | None) -> str:
    """Of a text that has this structure; that may begin with a reasoning between those tags, or does so."""
    return f"{_OPTIONS}\n{_start(reasoning)}{_answer(structure)}\n"


def _answer(structure: Structure) -> str:
    match structure.form:
        case JsonSchema(schema):
            return f"answer: %json {json_of(schema)}"
        case Regex(pattern):
            return f"answer: /{_escaped(pattern)}/"
        case Choice(options):
            return f"answer: CHOICE\nCHOICE: {' | '.join(map(quoted, options))}"
        case Lark(rules):
            return rules


def json_of(schema: Mapping[str, Any]) -> str:
    """What stands after %json. A client's own options are not taken."""
    return json.dumps({**schema, "x-guidance": JSON_STYLE})


def quoted(text: str) -> str:
    """A text as it stands in rules."""
    return json.dumps(text, ensure_ascii=False)


def _escaped(pattern: str) -> str:
    """A slash ends an expression in Lark, and so does the end of the line."""
    escaped = re.sub(r"\\(.)|/", lambda found: "\\/" if found[0] in ("/", "\\/") else found[0], pattern, flags=re.S)
    return escaped.replace("\\\n", "\\n").replace("\n", "\\n")


def _start(tags: ReasoningTags | None) -> str:
    if tags is None:
        return "start: answer\n"
    last = verbatim(tags.last, tags.hidden)
    # The first such tag ends the reasoning: a text of any length is lazy before its suffix, and no text has a token
    # that is special.
    until, last = (f"[suffix={last}]", "") if last == quoted(tags.last) else ("", last)
    thought = f"reasoning {last} margin"
    begin = thought if tags.begun else f"({verbatim(tags.first, tags.hidden)} {thought})?"
    return f"start: {begin} answer\nreasoning{until}: /(?s:.*)/\nmargin: /[ \\n]{{0,4}}/\n"


def verbatim(text: str, hidden: Mapping[int, str]) -> str:
    """A text as it stands in rules, where `hidden` are the special tokens in it, by their ids."""
    special = {name: number for number, name in hidden.items()}
    parts = re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]
    return " ".join(f"<[{special[part]}]>" if part in special else quoted(part) for part in parts if part)
