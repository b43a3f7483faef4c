"""The names of a start's phases, and which of them a later start of the same model does not have."""

from __future__ import annotations

CONVERTING = "converting the GGUF file"
WAITING_FOR_CONVERSION = "waiting for another start to convert the GGUF file"
ONCE = (CONVERTING, WAITING_FOR_CONVERSION)
"""Phases of a model's first start alone."""


def phase_name(phase: str) -> str:
    """What follows a comma tells how far the phase is."""
    return phase.partition(",")[0]
