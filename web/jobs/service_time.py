"""How long a generation takes, as seen from web: an average that Retry-After is computed from."""

from __future__ import annotations

WEIGHT = 0.2
"""Of the newest generation in the average."""


class ServiceTime:
    """Exponentially smoothed seconds of the generations that have ended; 1 before the first."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def learn(self, seconds: float) -> None:
        self.seconds += WEIGHT * (seconds - self.seconds)
