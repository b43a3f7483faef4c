"""How long a model that cannot start is left alone before the next try. Times are seconds of time.monotonic."""

from __future__ import annotations

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Before the next start, after one, two and more failures in a row."""

TRIES = 3
"""After so many failures in a row, clients get an error at once instead of waiting for the next start."""


class StartBackoff:
    """Counts failures in a row: starts that did not become ready, and processes that ended badly."""

    def __init__(self, now: float) -> None:
        self.retry_at = now
        """The next start may be made from then on."""
        self._failures = 0

    @property
    def exhausted(self) -> bool:
        return self._failures >= TRIES

    def succeeded(self) -> None:
        self._failures = 0

    def give_up(self) -> None:
        """No further start would be another one."""
        self._failures = max(self._failures, TRIES)

    def failed(self, now: float) -> None:
        self._failures += 1
        self.retry_at = now + BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS)) - 1]
