"""Up to which length a text leaves the positions of others as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from predictor.text.rope_scaling import scaled_context, unscaled_length

DYNAMIC = {"rope_type": "dynamic", "factor": 2.5}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 40, "short_factor": [1.0], "long_factor": [4.0]}
DEFAULT = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("parameters", "unscaled", "context"),
    [
        (None, None, 100),
        ({}, None, 100),
        (DEFAULT, None, 100),
        ({"rope_type": "yarn", "factor": 4.0}, None, 100),
        (LONG, 40, 100),
        (DYNAMIC, 100, 250),
        ({"sliding_attention": DEFAULT, "full_attention": DEFAULT}, None, 100),
        ({"sliding_attention": DEFAULT, "full_attention": DYNAMIC}, 100, 250),
        ({"sliding_attention": DYNAMIC, "full_attention": LONG}, 40, 250),
    ],
)
def test_the_shortest_limit_of_all_layers_counts(
    parameters: dict[str, Any] | None, unscaled: int | None, context: int
) -> None:
    config = SimpleNamespace(rope_parameters=parameters, max_position_embeddings=100)

    assert unscaled_length(config) == unscaled
    assert scaled_context(config) == context


def test_a_model_without_positions_has_no_limit() -> None:
    assert unscaled_length(SimpleNamespace()) is None
    assert scaled_context(SimpleNamespace()) is None
