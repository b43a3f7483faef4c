"""Transcripts of curl in Markdown: a command, and below it what the server answered."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = "http://127.0.0.1:8080"
"""Where the server of all transcripts is."""

_VARYING = {"created_at", "data", "deadline_at", "id", "instance", "system_fingerprint", "text", "timing", "usage"}
"""Members of answers of which only the type is the same in another run."""


@dataclass(frozen=True)
class Transcript:
    """One command without its prompt, and the lines that are printed below it."""

    page: str
    command: str
    answer: str


@dataclass(frozen=True)
class Answer:
    """What curl printed, taken apart: the same for two runs of a command."""

    status: str
    headers: frozenset[str]
    documents: list[tuple[str, Any]]
    """The name of each server-sent event ("" without) and its data; of tokens that follow each other only one."""


def read_transcripts(page: Path) -> list[Transcript]:
    """All commands of a page that ask SERVER for a generation and show the answer."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    pairs = [re.match(r"\$ (curl (?:.*\\\n)*.*)\n((?:.*\n)*)", block) for block in blocks]
    return [
        Transcript(page.name, pair[1], pair[2].rstrip("\n"))
        for pair in pairs
        if pair and f"{SERVER}/generate" in pair[1] and pair[2]
    ]


def read_answer(text: str) -> Answer:
    """Raises ValueError for what is no answer of the server."""
    status, headers = "", ""
    if text.startswith("HTTP/"):
        head, _, text = text.replace("\r", "").partition("\n\n")
        status, _, headers = head.partition("\n")
    names = frozenset(line.partition(":")[0].lower() for line in headers.split("\n") if ":" in line)
    documents: list[tuple[str, Any]] = []
    for name, data in re.findall(r"^event: (.*)\ndata: (.*)$", text, re.MULTILINE) or [("", text)]:
        document = (name, _comparable(json.loads(data)))
        if not documents or documents[-1] != document:
            documents.append(document)
    return Answer(status, names, documents)


def _comparable(value: Any, varies: bool = False) -> Any:
    """The value, with the types of what varies in the place of it."""
    match value:
        case dict():
            return {key: _comparable(member, varies or key in _VARYING) for key, member in value.items()}
        case list():
            return [_comparable(member, varies) for member in value]
    return type(value).__name__ if varies else value
