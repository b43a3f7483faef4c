"""What a generation costs."""

from __future__ import annotations

from typing import Any

import pytest

from contract import GenerationRequest, Kind
from web.jobs.cost import cost


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ("text", {}, 512),
        ("text", {"max_tokens": 7}, 7),
        ("image", {}, 20),
        ("image", {"size": "1024x512", "steps": 10, "n": 3}, 60),
    ],
)
def test_a_token_costs_as_much_as_a_denoising_step_of_512_pixels_square(
    kind: Kind, asked: dict[str, Any], expected: float
) -> None:
    assert cost(GenerationRequest(prompt="春", **asked), kind) == expected
