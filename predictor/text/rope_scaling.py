"""Rotary position embeddings that transformers scales by the longest text of a forward: longrope and dynamic NTK.

Up to a length they are those that the model was trained with. A longer text changes them, and those of all texts beside
it, so that a batch may only have texts up to that length.
"""

from __future__ import annotations

from typing import Any


def unscaled_length(config: Any) -> int | None:
    """Most tokens of a text that leaves the positions of others as they are; None where every text does."""
    lengths = [_length(config, parameters) for parameters in _rope_parameters(config)]
    return min((length for length in lengths if length is not None), default=None)


def scaled_context(config: Any) -> int | None:
    """Most tokens of a text with its positions scaled; None for a config without positions.

    Where the scaling is dynamic, `max_position_embeddings` are those that the model was trained with.
    """
    longest = getattr(config, "max_position_embeddings", None)
    factors = [parameters.get("factor") or 1.0 for parameters in _rope_parameters(config) if _is_dynamic(parameters)]
    return int(longest * max([1.0, *factors])) if longest else None


def _length(config: Any, parameters: dict[str, Any]) -> int | None:
    if parameters["rope_type"] == "longrope":
        return int(parameters["original_max_position_embeddings"])
    return int(config.max_position_embeddings) if _is_dynamic(parameters) else None


def _is_dynamic(parameters: dict[str, Any]) -> bool:
    return "dynamic" in parameters["rope_type"]  # as transformers' dynamic_rope_update has it


def _rope_parameters(config: Any) -> list[dict[str, Any]]:
    """Of all layers, or of each layer type."""
    parameters = getattr(config, "rope_parameters", None) or {}
    several = [parameters] if "rope_type" in parameters else parameters.values()
    return [each for each in several if isinstance(each, dict) and "rope_type" in each]
