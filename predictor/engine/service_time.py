"""How long generations take, learned from those that have ended: where `Retry-After` comes from."""

from __future__ import annotations


class ServiceTime:
    """Exponentially smoothed seconds that a generation of cost 1 takes. One second until the first has ended."""

    WEIGHT = 0.2

    def __init__(self) -> None:
        self.generation_s = 1.0
        self._learned = False

    def learn(self, generation_s: float) -> None:
        """Take in what a generation took, in seconds divided by its cost."""
        weight = self.WEIGHT if self._learned else 1.0
        self.generation_s += weight * (generation_s - self.generation_s)
        self._learned = True

    def wait_s(self, ahead: int, slots: int) -> float:
        """Seconds until a slot is free for the next task when `ahead` tasks run or wait before it."""
        return max(0, ahead - slots + 1) / slots * self.generation_s
