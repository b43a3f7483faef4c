"""Where this project lies, and its version. Runs on a bare Python."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version() -> str:
    """As pyproject.toml has it; also the tag of the images that deploy/ names."""
    text: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return text
