"""Print docs/openai.md from what was recorded: `python -m scripts.docs.openai > docs/openai.md`.

`python -m tests.support.openai.record` records it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.docs.template import fill

RECORD = Path(__file__).parent / "openai.json"
RESOURCES = {
    "chat.completions": "Chat completions",
    "completions": "Completions",
    "responses": "Responses",
    "images": "Images",
    "models": "Models",
}
LANGUAGES = {"python": "Python", "javascript": "JavaScript"}
STAND_INS = {
    "$file": "a PNG file",
    "$response": "the id of a response",
    "$begun": "the id of a response in the background",
    "$trip": "a type, of pydantic or zod",
    "$function": "a function to call",
}
"""What values stand for that JSON has not; see tests.support.openai.record."""

MOST_CHARS = 90


def describe() -> str:
    """The whole page."""
    record = json.loads(RECORD.read_text())
    sections = "\n\n".join(_section(prefix, title, record["methods"]) for prefix, title in RESOURCES.items())
    return fill("openai.md", {**record["versions"], "resources": sections})


def _section(prefix: str, title: str, methods: list[dict[str, Any]]) -> str:
    own = [method for method in methods if _name(method).startswith(f"{prefix}.")]
    parts = [f"## {title}", *(_table(method) for method in own if method["offered"])]
    if missing := [_missing(method) for method in own if not method["offered"]]:
        parts.append(f"Not offered: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _name(method: Mapping[str, Any]) -> str:
    return str(method["python"] or method["javascript"])


def _table(method: Mapping[str, Any]) -> str:
    names = {language: method[language] for language in LANGUAGES if method[language]}
    both = len(names) == len(LANGUAGES)
    heading = " and ".join(f"`{name}`" for name in dict.fromkeys(names.values()))
    heading += "" if both else f" ({LANGUAGES[next(iter(names))]} only)"
    rows = [f"### {heading}", "", "| parameter | works | refused by name |", "|---|---|---|"]
    for parameter, values in method["parameters"].items():
        cells = [", ".join(_values(values, state, both=both)) for state in ("works", "refused")]
        rows.append(f"| {f'`{parameter}`' if parameter else 'none'} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def _values(values: list[dict[str, Any]], state: str, *, both: bool) -> Iterator[str]:
    for value in values:
        languages = [LANGUAGES[language] for language in LANGUAGES if value.get(language) == state]
        if languages:
            of_caller = " with `caller`" if value.get("with", {}).get("model") == "caller" else ""
            alone = f" ({languages[0]})" if both and len(languages) == 1 else ""
            yield _shown(value["value"]) + of_caller + alone


def _shown(value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1 and (stand_in := STAND_INS.get(next(iter(value)))):
        return stand_in
    if isinstance(value, list) and value and isinstance(value[0], dict) and value[0].keys() & STAND_INS.keys():
        return f"{len(value)} × {_shown(value[0])}"
    if value is None:
        return "yes"
    text = json.dumps(value, ensure_ascii=False).replace("|", "\\|")
    return f"`{text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + '…'}`"


def _missing(method: Mapping[str, Any]) -> str:
    names = dict.fromkeys(method[language] for language in LANGUAGES if method[language])
    parameters = ", ".join(f"`{name}`" for name in method["parameters"] if name)
    return " / ".join(f"`{name}`" for name in names) + (f" ({parameters})" if parameters else "")


if __name__ == "__main__":
    print(describe(), end="")
