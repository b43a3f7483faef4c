"""From process start to ready, phase by phase."""

from __future__ import annotations

import gc
import logging
import os
import time
from pathlib import Path

from contract import problems
from contract.problems import ProblemError
from predictor import metrics
from predictor.loading import systemd

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""What a client is told to wait before it asks again while the model loads."""


def process_age() -> float:
    """Seconds since this process was started; 0 where the system does not tell."""
    try:
        begun_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begun_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


class Startup:
    """Where loading is, and for how long it has been so. Written by the loading thread, read by the event loop."""

    def __init__(self, age: float = 0.0) -> None:
        self._phase_begun = time.monotonic()
        self._begun = self._phase_begun - age
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
        systemd.tell_phase(phase)

    def note(self, phase: str, seconds: float) -> None:
        """What took so long by itself, beside or within the phase that is told to clients."""
        metrics.PHASE.labels(phase).set(seconds)
        log.info("%s took %.2f s", phase, seconds)

    def succeed(self) -> None:
        self._close_phase("ready")
        _collect_garbage()
        self._ready_at = time.monotonic()
        self.ready = True
        systemd.tell_ready()
        metrics.PHASE.labels("ready").set(self.seconds)
        log.info("ready after %.2f s", self.seconds)

    def fail(self, error: str) -> None:
        _collect_garbage()
        self.phase = "failed"
        self.error = error
        systemd.tell_failure(error)

    def _close_phase(self, following: str) -> None:
        self.note(self.phase, time.monotonic() - self._phase_begun)
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


def _collect_garbage() -> None:
    """Where a start has gone without: what imports have made stays, and need not be looked at ever again."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
