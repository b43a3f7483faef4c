"""The phases of the start, from the process's exec to ready: shown to clients, to the supervisor and as metrics."""

from __future__ import annotations

import gc
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract import problems
from contract.problems import ProblemError
from predictor import metrics, systemd
from predictor.loading.phases import ONCE, phase_name

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""The Retry-After of an answer while the model loads."""


def process_age() -> float:
    """Seconds since this process was started; 0 where there is no /proc, as outside of Linux."""
    try:
        begun_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begun_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


class Startup:
    """Which phase the start is in. The loading thread writes it, the event loop reads it. `age` is in seconds: how long
    the process has run already."""

    expected_seconds: float | None = None
    """From the start of the process to ready, as earlier starts took."""

    def __init__(self, age: float = 0.0) -> None:
        self._phase_begun = time.monotonic()
        self._begun = self._phase_begun - age
        self._once_seconds = 0.0
        self.phase = "starting"
        self.ready = False
        self._ready_at = 0.0
        self._refused_at = -math.inf
        self.error: str | None = None
        self.on_ready: list[Callable[[float], None]] = []
        """Called with the seconds since the process was started, once it is ready; without those of phases that later
        starts do not have."""

    @property
    def seconds(self) -> float:
        """Since the process was started."""
        return time.monotonic() - self._begun

    @property
    def ready_s(self) -> float:
        """Seconds since it became ready; 0 before."""
        return time.monotonic() - self._ready_at if self.ready else 0.0

    @property
    def awaits_retry(self) -> bool:
        """Whether somebody who was told to come again in RETRY_SECONDS may not have come yet."""
        return time.monotonic() - self._refused_at < 2 * RETRY_SECONDS

    def enter(self, phase: str) -> None:
        """End the current phase, and report the next one. What follows a comma tells how far the same one is."""
        if phase_name(phase) == phase_name(self.phase):
            self.phase = phase
        else:
            self._close_phase(phase)
            if phase in ONCE:  # earlier starts tell nothing of this one
                self.expected_seconds = None
        systemd.notify_phase(phase)

    def record(self, phase: str, seconds: float) -> None:
        """Put the seconds of a phase, or of a part of one, into the metrics and the log."""
        metrics.PHASE.labels(phase).set(seconds)
        log.info("%s took %.2f s", phase, seconds)

    def succeed(self) -> None:
        """The model is loaded and has been warmed up."""
        self._close_phase("ready")
        _enable_garbage_collection()
        self._ready_at = time.monotonic()
        self.ready = True
        metrics.PHASE.labels("ready").set(self.seconds)
        log.info("ready after %.2f s", self.seconds)
        seconds = self.seconds
        for notify in self.on_ready:
            notify(seconds - self._once_seconds)
        systemd.notify_ready()

    def fail(self, error: str) -> None:
        """The model cannot be loaded, for the reason in this line."""
        _enable_garbage_collection()
        self.phase = "failed"
        self.error = error
        systemd.notify_failure(error)

    def _close_phase(self, following: str) -> None:
        name, seconds = phase_name(self.phase), time.monotonic() - self._phase_begun
        self.record(name, seconds)
        if name in ONCE:
            self._once_seconds += seconds
        self._phase_begun = time.monotonic()
        self.phase = following

    def problem(self, name: str) -> ProblemError:
        """What a request to the model `name` is answered while it loads."""
        self._refused_at = time.monotonic()
        expected: dict[str, Any] = {} if self.expected_seconds is None else {"expected_seconds": self.expected_seconds}
        return ProblemError(
            problems.LOADING,
            f"Model {name} is not ready: {self.phase}, {self.seconds:.1f} s so far.",
            retry_after=RETRY_SECONDS,
            phase=self.phase,
            seconds=round(self.seconds, 3),
            **expected,
        )


def _enable_garbage_collection() -> None:
    """Turn the collection on, when main has turned it off. Objects of imports live for ever and are never searched."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
