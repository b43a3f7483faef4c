"""Phases of a start that a later start of the same model does not have."""

from __future__ import annotations

CONVERTING = "converting the GGUF file"
WAITING_FOR_CONVERSION = "waiting for another start to convert the GGUF file"
ONCE = (CONVERTING, WAITING_FOR_CONVERSION)
"""Their names; what follows a comma tells how far they are."""
