"""What a generation costs: the measure by which callers share a model."""

from __future__ import annotations

from contract import GenerationRequest, Kind

TOKENS = 512
"""Taken for a text that does not say how many it may have: the predictor's default."""

STEPS = 20
SIDE = 512
"""Taken for a picture that does not say."""


def cost(request: GenerationRequest, kind: Kind) -> float:
    """In tokens of a text; a denoising step of 512 x 512 pixels counts as one token."""
    if kind == "text":
        return float(request.max_tokens or TOKENS)
    width, height = map(int, (request.size or f"{SIDE}x{SIDE}").split("x"))
    steps = (request.steps or STEPS) * (request.strength or 1)
    return (request.n or 1) * steps * width * height / SIDE**2
