"""What decides how one picture looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DiffusionParameters:
    """Of one picture, with its own `seed` and all defaults filled in. `width` and `height` are in pixels."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    guidance: float | None = None
    negative_prompt: str | None = None
