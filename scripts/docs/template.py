"""The prose of the generated pages: Markdown files with {{names}} in the places of what comes from the code."""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = Path(__file__).parent / "templates"


def fill(page: str, values: dict[str, str]) -> str:
    """The template of a page, filled in. Raises KeyError for a name that has no value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda name: values[name[1]], (_FOLDER / page).read_text())
