"""What llguidance says of a structure that it does not take, in the words of problems."""

from __future__ import annotations

import json
import re

_LONGEST = 200

_TOO_LARGE = "is too large or too complex"
_UNWRITABLE = "allows nothing that the model's vocabulary can write"

_SAYINGS = (
    (r"Unimplemented keys: (\[.*\])", None),
    (r"Unknown format: (.*)", "has a format that is not supported: {}"),
    (r"Pointer '(.*)' does not exist", "has a $ref that leads nowhere: {}"),
    (r"Resource '(.*)' is not present", "may name only schemas within itself by $ref, and standard ones; not {}"),
    (r"oneOf constraints are not supported", "has a oneOf whose schemas are not told apart; use anyOf"),
    (r"recursion limit exceeded", "nests too deeply"),
    (r"^error: (.*not supported)$", "has a regular expression with what is not supported: {}"),
    (r"^error: (.*)$", "has a regular expression that cannot be read: {}"),
    (r"(lookarounds not supported).*", "has a regular expression with what is not supported: \\b, \\B or the like"),
    (r"Unable to determine if regex is empty", "combines regular expressions in a way that is not supported"),
    (r"schema too large|fuel exhausted|too many|too complex|current row has|max_grammar_size|too big", _TOO_LARGE),
    (r"NoExtension", _UNWRITABLE),
)


def refusal(error: str) -> str:
    """A predicate of the structure, in one line."""
    for pattern, words in _SAYINGS:
        found = re.search(pattern, error, re.IGNORECASE | re.MULTILINE)
        if found is None:
            continue
        if words is None:
            return _keywords(found[1])
        return words.format(found[1][:_LONGEST]) if found.re.groups else words
    first = re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: ", "", error.strip().partition("\n")[0])
    return f"cannot be used: {first[:_LONGEST]}"


def _keywords(names: str) -> str:
    """Of a JSON array."""
    try:
        keywords = json.loads(names)
    except ValueError:
        keywords = [names[:_LONGEST]]
    if len(keywords) == 1:
        return f"has a keyword that is not supported: {keywords[0]}"
    return f"has keywords that are not supported: {', '.join(keywords)}"
