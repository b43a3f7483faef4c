"""The metrics of a model's readiness: the state that it is in, and what its wake-ups take."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import get_args

from contract import ModelState, ModelStatus
from web.metrics import MODEL_STATE, WAKE_UP, WAKE_UP_EXPECTED, WAKE_UP_LAST, WAKE_UP_PHASE, WAKE_UPS
from web.readiness.model_readiness import Origin, Readiness
from web.telemetry.name_limit import NameLimit

SCHEDULING = "scheduling"
"""The phase of which the model server has said nothing yet."""

MOST_PHASES = 32
"""Phases that are told apart: model servers name them."""

_PHASES = NameLimit(MOST_PHASES)


@dataclass(slots=True)
class _WakeUp:
    """One that is going on."""

    since: float
    expected: float | None
    phase: str
    phase_since: float
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """In each phase that is over."""

    def enter(self, phase: str | None, now: float) -> None:
        self.seconds[self.phase] += now - self.phase_since
        if phase is not None:
            self.phase = _PHASES.label(phase.partition(",")[0])  # what follows is how far it has come
        self.phase_since = now


class WakeUpMetrics:
    """Follows the readiness of one model. What other replicas tell of it counts, too."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._wake_up: _WakeUp | None = None
        self._past = readiness.past_wake_ups
        for outcome in ("ready", "failed"):
            WAKE_UPS.labels(readiness.model, outcome)
        self.show()
        readiness.subscribe(self._note)

    def show(self) -> None:
        """Called now and then: a model falls asleep, and a wake-up is given up, without a word."""
        state = self._readiness.state
        for each in get_args(ModelState):
            MODEL_STATE.labels(self._readiness.model, each).set(each == state)
        if self._wake_up is not None and state != "waking":
            self._end(time.monotonic())

    def _note(self, _status: ModelStatus, _origin: Origin) -> None:
        now, current = time.monotonic(), self._readiness.wake_up
        if self._wake_up is not None and (current is None or current.since > self._wake_up.since):
            self._end(now)  # and another one may have begun
        if current is not None:
            if self._wake_up is None:
                self._past = self._readiness.past_wake_ups
                self._wake_up = _WakeUp(current.since, None, SCHEDULING, current.since)
            if self._wake_up.expected is None:  # where it is the first, the model server may know
                self._wake_up.expected = self._readiness.expected_seconds
            waking = self._readiness.waking
            self._wake_up.since = current.since
            self._wake_up.enter(None if waking is None else waking.phase, now)
        self.show()

    def _end(self, now: float) -> None:
        wake_up, self._wake_up = self._wake_up, None
        assert wake_up is not None
        model, past = self._readiness.model, self._readiness.past_wake_ups
        if past == self._past:
            WAKE_UPS.labels(model, "failed").inc()
            return
        wake_up.enter(None, now)
        seconds = past[-1]
        # The server may have said that it began earlier than was known.
        wake_up.seconds[SCHEDULING] = 0.0
        wake_up.seconds[SCHEDULING] = max(seconds - sum(wake_up.seconds.values()), 0.0)
        for phase, each in wake_up.seconds.items():
            WAKE_UP_PHASE.labels(model, phase).inc(each)
        WAKE_UPS.labels(model, "ready").inc()
        WAKE_UP.labels(model).observe(seconds)
        WAKE_UP_LAST.labels(model).set(seconds)
        if wake_up.expected is not None:
            WAKE_UP_EXPECTED.labels(model).set(wake_up.expected)
