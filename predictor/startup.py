"""From process start to ready, phase by phase."""

from __future__ import annotations

import logging
import time

from contract import problems
from contract.problems import ProblemError
from predictor import supervisor

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""What a client is told to wait before it asks again while the model loads."""


class Startup:
    """Where loading is. Written by the loading thread, read by the event loop."""

    def __init__(self) -> None:
        self._begun = self._phase_begun = time.monotonic()
        self.phase = "starting"
        self.ready = False
        self._ready_at = 0.0
        self.error: str | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    @property
    def ready_s(self) -> float:
        """For so long it has been ready."""
        return time.monotonic() - self._ready_at if self.ready else 0.0

    def enter(self, phase: str) -> None:
        self._close_phase(phase)
        supervisor.tell_phase(phase)

    def succeed(self) -> None:
        self._close_phase("ready")
        self._ready_at = time.monotonic()
        self.ready = True
        supervisor.tell_ready()
        log.info("ready after %.2f s", self.seconds)

    def fail(self, error: str) -> None:
        self.phase = "failed"
        self.error = error
        supervisor.tell_failure(error)

    def _close_phase(self, following: str) -> None:
        log.info("%s took %.2f s", self.phase, time.monotonic() - self._phase_begun)
        self._phase_begun = time.monotonic()
        self.phase = following

    def problem(self, name: str) -> ProblemError:
        """Why the model called `name` cannot answer yet."""
        return ProblemError(
            problems.LOADING,
            f"Model {name} is not ready: {self.phase}, {self.seconds:.1f} s so far.",
            retry_after=POLL_SECONDS,
            phase=self.phase,
            seconds=round(self.seconds, 3),
        )
