"""The states of one model process, from what it reports and how it ends. Times are seconds of time.monotonic."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping
from typing import Literal

from predictor.loading.phases import ONCE, phase_name
from scripts.local.processes.start_backoff import StartBackoff

State = Literal["asleep", "waking", "ready", "failed"]

LEAVING_SECONDS = 35.0
"""Longest that a process may take to end once it accepts nothing: more than the predictor's own grace period."""

WAKES = 8
"""So many wake-ups are remembered."""


class ModelProcess:
    """The predictor of one model: started by a connection, it ends by itself when idle. Does no I/O."""

    def __init__(self, now: float) -> None:
        self.state: State = "asleep"
        self.since = now
        self.phase: str | None = None
        self.failure: str | None = None
        """Why the latest start failed or the latest process ended badly."""
        self.running = False
        self.slots: int | None = None
        """Of the latest process that has said how many it has."""
        self.wake_seconds: deque[float] = deque(maxlen=WAKES)
        self._backoff = StartBackoff(now)
        self._reported_failure: str | None = None
        self._once_since: float | None = None
        self._once_seconds = 0.0
        self._gone_by: float | None = None

    @property
    def retry_at(self) -> float:
        """It is not to be started before."""
        return self._backoff.retry_at

    def started(self, now: float) -> None:
        self.running = True
        self._reported_failure = self._gone_by = self._once_since = None
        self._once_seconds = 0.0
        self._enter("waking", now, phase="starting")

    def notified(self, notice: Mapping[str, str], now: float) -> None:
        """The process reports on itself, in the variables of sd_notify(3)."""
        if "X_SLOTS" in notice:
            self.slots = int(notice["X_SLOTS"])
        elif "STOPPING" in notice:
            self._gone_by = now + LEAVING_SECONDS
        elif "ERRNO" in notice:
            self._reported_failure = notice.get("STATUS")
        elif "READY" in notice:
            self._note_once("", now)
            self.wake_seconds.append(round(now - self.since - self._once_seconds, 3))
            self._backoff.succeeded()
            self.failure = None
            self._enter("ready", now)
        elif "STATUS" in notice and self.state == "waking":
            self.phase = notice["STATUS"]
            self._note_once(self.phase, now)

    def ended(self, status: int, now: float) -> None:
        """The process has ended, with `status` as subprocess gives it: negative for a signal."""
        self.running = False
        if status == 0 and self.state == "ready":
            self._enter("asleep", now)
            return
        phase = f" while {self.phase}" if self.phase else ""
        self.failure = self._reported_failure or f"its predictor {describe_end(status)}{phase}"
        self._backoff.failed(now)
        self._enter("failed" if self._backoff.exhausted else "asleep", now)

    def takes_connections(self, now: float) -> bool:
        """Whether a connection is to be acted on now: by a start, or by an error if `refuses_connections`."""
        return not self.running and (now >= self.retry_at or self.refuses_connections(now))

    def refuses_connections(self, now: float) -> bool:
        return self.state == "failed" and now < self.retry_at

    def overdue(self, now: float) -> bool:
        """Whether it has stopped accepting and should have ended by now."""
        return self.running and self._gone_by is not None and now >= self._gone_by

    def _note_once(self, phase: str, now: float) -> None:
        """What only a first start does tells nothing of how long the next one takes."""
        if self._once_since is not None:
            self._once_seconds += now - self._once_since
        self._once_since = now if phase_name(phase) in ONCE else None

    def _enter(self, state: State, now: float, phase: str | None = None) -> None:
        self.phase = phase
        if state != self.state:
            self.state = state
            self.since = now


def describe_end(status: int) -> str:
    """What an exit status of subprocess means."""
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
