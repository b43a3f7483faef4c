"""How long a client is going to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping

from contract.problems import invalid_field

HEADER = "X-Request-Timeout"
"""Seconds; what cannot be finished in them is refused at once, and given up when they are over."""

REQUEST_SECONDS = 600.0
"""Longest that any request may take: what Knative allows at most."""


def request_seconds(headers: Mapping[str, str], limit: float) -> float:
    """The time a request is given, from its header (names in lower case) and the server's own limit."""
    text = headers.get(HEADER.lower())
    if text is None:
        return limit
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid_field(HEADER, f"must be a number of seconds above 0, not {text[:64]!r}")
    return min(seconds, limit)
