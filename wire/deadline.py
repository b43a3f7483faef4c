"""X-Request-Timeout: how long a client is going to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping

from contract.problems import invalid_field

HEADER = "X-Request-Timeout"
"""In seconds. A request that cannot be finished in them is refused at once, and cancelled when they are over."""

REQUEST_SECONDS = 600.0
"""Longest that any request may take: Knative's default for max-revision-timeout-seconds."""


def request_seconds(headers: Mapping[str, str], limit: float) -> float:
    """The time limit of a request: its header's, at most the server's `limit`. Names of `headers` in lower case.

    INVALID_FIELD when the header is no number of seconds above 0.
    """
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
