"""When a call is tried again: after what was refused for now, and after broken connections where nothing doubles."""

from __future__ import annotations

import time

import httpx2

from contract import ProblemError

LOST_SECONDS = 60.0
"""How long a call is tried again that hears nothing from the server."""

PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0

LEAST_SECONDS = 0.001
"""Left to a call whose time is over: no timeout of httpx2 is 0."""


class Attempts:
    """Those of one call, within `timeout` seconds; a `repeatable` call is tried again after a broken connection, too.

    A 429 or 503 is tried again after its Retry-After, if that is within the timeout.
    """

    def __init__(self, timeout: float, *, repeatable: bool) -> None:
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._repeatable = repeatable
        self._pause = PAUSE_SECONDS
        self._lost_at: float | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self._deadline - time.monotonic(), LEAST_SECONDS)

    def note_answer(self) -> None:
        """The server is heard. Raises a TimeoutError where the time is over."""
        self._pause = PAUSE_SECONDS
        self._lost_at = None
        if time.monotonic() >= self._deadline:
            raise self._over()

    def pause(self, failure: httpx2.TransportError | ProblemError) -> float:
        """Seconds until the next attempt. Raises the failure where there is none, or a TimeoutError."""
        now = time.monotonic()
        if isinstance(failure, httpx2.TransportError) and now >= self._deadline:
            raise self._over() from failure
        told = _retry_after(failure)
        if told is not None:
            seconds = told
        elif self._repeatable and (isinstance(failure, httpx2.TransportError) or failure.kind.transient):
            seconds = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._lost_at = now if self._lost_at is None else self._lost_at
            if now + seconds > self._lost_at + LOST_SECONDS:
                raise failure
        else:
            raise failure
        if now + seconds >= self._deadline:
            raise failure
        return seconds

    def _over(self) -> TimeoutError:
        return TimeoutError(f"not within {self._timeout:g} s")


def _retry_after(failure: Exception) -> float | None:
    if isinstance(failure, ProblemError) and failure.problem.status in (429, 503):
        return failure.problem.retry_after
    return None
