"""docs/openai.md says something of every parameter of the clients that are installed."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.openai.record import FILE, javascript_version
from tests.support.openai.recorder import SNAKE
from tests.support.openai.signatures import javascript_signatures, python_signatures

RECORD: Any = json.loads(FILE.read_text())


def recorded(language: str) -> dict[str, set[str]]:
    """The parameters of each method that are listed for a language."""
    return {method[language]: set(method["parameters"]) for method in RECORD["methods"] if method[language]}


def unlisted(signatures: dict[str, list[str]], language: str) -> list[str]:
    found = recorded(language)
    wanted = {name: {SNAKE.get(one, one) for one in parameters} for name, parameters in signatures.items()}
    methods = [name for name in wanted if name not in found]
    return methods + [f"{name} {one}" for name in wanted.keys() - methods for one in wanted[name] - found[name]]


def test_every_parameter_in_python_is_listed() -> None:
    assert RECORD["versions"] == {"python": version("openai"), "javascript": javascript_version()}
    assert unlisted(python_signatures(), "python") == []


@pytest.mark.slow
def test_every_parameter_in_javascript_is_listed(programs: Path) -> None:
    assert unlisted(javascript_signatures(programs), "javascript") == []


def test_nothing_is_listed_that_is_none_of_the_three_states() -> None:
    for method in RECORD["methods"]:
        values = [value for values in method["parameters"].values() for value in values]
        assert bool(values) == method["offered"]
        assert {value.get(language) for value in values for language in ("python", "javascript")} <= {
            "works",
            "refused",
            None,
        }
