"""The weights in Accept, Accept-Language and Accept-Encoding (RFC 9110, 12.4.2)."""

from __future__ import annotations

from starlette.datastructures import Headers


def weighted(headers: Headers, name: str) -> list[tuple[str, float]]:
    """The items of all headers of this name, in lower case, each with its weight from 0 to 1."""
    return [_weighted(item) for item in ",".join(headers.getlist(name)).split(",") if item.strip()]


def _weighted(item: str) -> tuple[str, float]:
    name, *parameters = item.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    weight = next((text for key, _, text in pairs if key.strip().lower() == "q"), "1")
    try:
        return name.strip().lower(), min(max(float(weight), 0), 1)
    except ValueError:
        return name.strip().lower(), 0
