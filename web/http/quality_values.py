"""The weights in Accept, Accept-Language and Accept-Encoding (RFC 9110, 12.4.2)."""

from __future__ import annotations

from starlette.datastructures import Headers

MOST_ITEMS = 64
"""Most items of a header that are read; browsers send ten at most. What comes after them does not count."""


def weighted(headers: Headers, name: str) -> dict[str, float]:
    """The items of all headers of this name, in lower case, each with its largest weight, from 0 to 1."""
    weights: dict[str, float] = {}
    for text in ",".join(headers.getlist(name)).split(",", MOST_ITEMS)[:MOST_ITEMS]:
        if text.strip():
            item, weight = _weighted(text)
            weights[item] = max(weight, weights.get(item, 0))
    return weights


def _weighted(item: str) -> tuple[str, float]:
    name, *parameters = item.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    weight = next((text for key, _, text in pairs if key.strip().lower() == "q"), "1")
    try:
        return name.strip().lower(), min(max(float(weight), 0), 1)
    except ValueError:
        return name.strip().lower(), 0
