"""How long a generation takes, as seen from web: averages that Retry-After and expected_seconds are computed from."""

from __future__ import annotations

WEIGHT = 0.2
"""Of the newest generation in the averages."""


class ServiceTime:
    """Exponentially smoothed seconds of the generations that have ended; taken to be 1 before the first."""

    def __init__(self) -> None:
        self.seconds = 1.0
        self.known = False
        """Whether one has ended."""
        self.parallel = 1.0
        """How many ran at a time, itself included, where one ended."""

    def learn(self, seconds: float, parallel: int = 1) -> None:
        self.seconds += WEIGHT * (seconds - self.seconds)
        self.parallel += WEIGHT * (parallel - self.parallel)
        self.known = True

    def until_end(self, ahead: int, parallel: float) -> float:
        """Seconds until one has ended that so many are before, running ones included, of which so many run at a
        time."""
        return self.seconds * (1 + max(0.0, ahead + 1 - parallel) / parallel)
