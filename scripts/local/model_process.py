"""When a model's predictor is started, and what is known of it. Times are those of time.monotonic."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping
from typing import Literal

State = Literal["asleep", "waking", "ready", "failed"]

BACK_OFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Before the next start, after one, two and more in a row that came to nothing."""

TRIES = 3
"""So many starts in a row may come to nothing before who waits is told why."""

LEAVING_SECONDS = 35.0
"""Longest that a predictor may take to end once it accepts nothing: more than the grace that it gives itself."""

WAKES = 8
"""So many wake-ups are remembered."""


class Sleeper:
    """One model. It is started when it is asked for; it ends by itself, well or not."""

    def __init__(self, now: float) -> None:
        self.state: State = "asleep"
        self.since = now
        self.phase: str | None = None
        self.why: str | None = None
        """The latest start or predictor came to a bad end for this reason."""
        self.running = False
        self.retry_at = now
        """Not to be started before."""
        self.wake_seconds: deque[float] = deque(maxlen=WAKES)
        self._failures = 0
        self._told: str | None = None
        self._gone_by: float | None = None

    def start(self, now: float) -> None:
        """A predictor has been started."""
        self.running = True
        self._told = self._gone_by = None
        self._enter("waking", now, phase="starting")

    def hear(self, notice: Mapping[str, str], now: float) -> None:
        """What the predictor says, in the words of sd_notify."""
        if "STOPPING" in notice:
            self._gone_by = now + LEAVING_SECONDS
        elif "ERRNO" in notice:
            self._told = notice.get("STATUS")
        elif "READY" in notice:
            self.wake_seconds.append(round(now - self.since, 3))
            self._failures = 0
            self.why = None
            self._enter("ready", now)
        elif "STATUS" in notice and self.state == "waking":
            self.phase = notice["STATUS"]

    def end(self, status: int, now: float) -> None:
        """The predictor has ended, with a status as subprocess has it."""
        self.running = False
        if status == 0 and self.state == "ready":
            self._enter("asleep", now)
            return
        self.why = self._told or f"its predictor {_ending(status)}" + (f" while {self.phase}" if self.phase else "")
        self._failures += 1
        self.retry_at = now + BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS)) - 1]
        self._enter("failed" if self._failures >= TRIES else "asleep", now)

    def takes_connections(self, now: float) -> bool:
        """Whether a connection is a reason to do something now: to `start`, or to tell it why if it `refuses`."""
        return not self.running and (now >= self.retry_at or self.refuses(now))

    def overdue(self, now: float) -> bool:
        """Whether its predictor accepts nothing and does not go."""
        return self.running and self._gone_by is not None and now >= self._gone_by

    def refuses(self, now: float) -> bool:
        return self.state == "failed" and now < self.retry_at

    def _enter(self, state: State, now: float, phase: str | None = None) -> None:
        self.phase = phase
        if state != self.state:
            self.state = state
            self.since = now


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
