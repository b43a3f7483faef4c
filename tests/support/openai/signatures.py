"""The methods of the official clients' resources, and their parameters, as the installed packages have them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import openai

from tests.support.openai.javascript_client import run_script

RESOURCES = ("chat.completions", "completions", "responses", "images", "models")

REQUEST_OPTIONS = ("extra_headers", "extra_query", "extra_body", "timeout")
"""Parameters of every method in Python, which are about the request; in JavaScript they are a second argument."""


def python_signatures() -> dict[str, list[str]]:
    """The parameters of each method, by its path from the client."""
    found: dict[str, list[str]] = {}
    with openai.OpenAI(api_key="none") as client:
        for path in RESOURCES:
            resource: Any = client
            for part in path.split("."):
                resource = getattr(resource, part)
            _describe(path, resource, found)
    return found


def javascript_signatures(folder: Path) -> dict[str, list[str]]:
    """The same of JavaScript's; `folder` is a `program_folder`."""
    found: dict[str, list[str]] = run_script(folder, "signatures.mjs", *RESOURCES)
    return found


def _describe(path: str, resource: Any, found: dict[str, list[str]]) -> None:
    for name, member in inspect.getmembers(resource):
        if name.startswith(("_", "with_")):
            continue
        if inspect.ismethod(member):
            parameters = inspect.signature(member).parameters
            found[f"{path}.{name}"] = sorted(one for one in parameters if one not in REQUEST_OPTIONS)
        elif hasattr(member, "with_raw_response"):  # a resource below this one
            _describe(f"{path}.{name}", member, found)
