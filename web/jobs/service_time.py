"""How long a generation takes from here, learned from those that have ended."""

from __future__ import annotations

WEIGHT = 0.2
"""Of the newest one."""


class ServiceTime:
    """Seconds, smoothed."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def learn(self, seconds: float) -> None:
        self.seconds += WEIGHT * (seconds - self.seconds)
