"""The state machine behind `Readiness`: what was observed of a model, and what that says of it.

Every transition returns a new state. Nothing here reads a clock or does I/O: `now` is in seconds of `time.monotonic`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

from contract import ModelState, ModelStatus
from web.readiness.states_file import ReportedState

WAKE_UPS = 5
"""How many past wake-ups the next one is expected to be like."""

SILENCE_SECONDS = 0.5
"""A model server that is awake has begun its answer by then, if only to say that the request is queued."""


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A wake-up that is going on: since when, when that was last observed, and what it is doing."""

    since: float
    observed_at: float
    phase: str | None = None


@dataclass(frozen=True, slots=True)
class ReadinessState:
    """Of one model. It counts as asleep `idle_seconds` after its last answer (infinity: it never sleeps). A wake-up
    counts as given up `wake_seconds` after it was last observed."""

    idle_seconds: float
    wake_seconds: float
    report: ReportedState | None = None
    """What the supervisor of this machine says, or what is seen of its endpoints, if there is either. Only a wake-up
    that was observed counts more."""
    answering: int = 0
    """How many answers are coming in just now."""
    asked: tuple[float, ...] = ()
    """When the requests and questions began that have no answer yet."""
    answered_at: float | None = None
    ready_since: float | None = None
    wake_up: WakeUp | None = None
    told_seconds: float | None = None
    """How long the model server says that its starts take."""
    past_wake_ups: tuple[float, ...] = ()
    """How many seconds the last ones took, the newest last."""
    revision: int = 0
    """Grows with every change that others should know of."""

    def at(self, now: float) -> ModelState:
        """What is known now; or that it is silent, where what is known may be over: it has answered within its idle
        window, or nothing was ever heard of it, and nobody reports on it."""
        known = self.known(now)
        doubtful = known in ("ready", "unknown") and self.report is None and not self.answering
        silent_since = self.silent_since
        if doubtful and silent_since is not None and now - silent_since >= SILENCE_SECONDS:
            return "pending"
        return known

    def known(self, now: float) -> ModelState:
        """Whoever is silent."""
        if self.wake_up is not None and now - self.wake_up.observed_at <= self.wake_seconds:
            return "waking"
        if self.report is not None:
            return "unknown" if self.report.state == "failed" else self.report.state
        if self.answered_at is None:
            return "unknown"
        return "ready" if self.answering or now - self.answered_at <= self.idle_seconds else "asleep"

    def since(self, now: float) -> float | None:
        """When the state of now began, as far as it was observed."""
        match self.at(now):
            case "waking":
                return None if self.wake_up is None else self.wake_up.since
            case "ready":
                return self.ready_since
            case "asleep":
                return self.answered_at  # or some time later
            case "pending":
                return self.silent_since
            case _:
                return None

    @property
    def silent_since(self) -> float | None:
        """When the first of those that have no answer yet began, of those that began after the last answer."""
        heard_at = self.answered_at
        return min((begun for begun in self.asked if heard_at is None or begun > heard_at), default=None)

    @property
    def phase(self) -> str | None:
        """Of the wake-up: the supervisor's word if it has one, or else the model server's."""
        if self.report is not None and self.report.state == "waking" and self.report.phase:
            return self.report.phase
        return None if self.wake_up is None else self.wake_up.phase

    @property
    def expected_seconds(self) -> float | None:
        """How long a wake-up takes: the median of the last ones, or what the model server says. None where nobody
        knows."""
        reported = [] if self.report is None else self.report.wake_seconds[-WAKE_UPS:]
        wake_ups = reported or self.past_wake_ups
        return round(median(wake_ups), 1) if wake_ups else self.told_seconds

    # Transitions

    def reported(self, report: ReportedState | None) -> ReadinessState:
        return self if report == self.report else replace(self, report=report)  # asked for ten times a request

    def asks(self, begun: float) -> ReadinessState:
        """A request or a question has begun, and has no answer yet."""
        return replace(self, asked=(*self.asked, begun))

    def asked_no_more(self, begun: float) -> ReadinessState:
        """It has an answer, or has failed or been given up."""
        index = self.asked.index(begun)
        return replace(self, asked=self.asked[:index] + self.asked[index + 1 :])

    def answered(self, now: float) -> ReadinessState:
        """It has begun an answer, so it is ready."""
        changed = self.known(now) != "ready"
        woke_up = () if self.wake_up is None else (now - self.wake_up.since,)
        return replace(
            self,
            answered_at=now,
            ready_since=now if changed else self.ready_since,
            wake_up=None,
            past_wake_ups=(*self.past_wake_ups, *woke_up)[-WAKE_UPS:],
            revision=self.revision + changed,
        )

    def answer_begun(self) -> ReadinessState:
        return replace(self, answering=self.answering + 1)

    def answer_ended(self, now: float) -> ReadinessState:
        answered_at = None if self.answered_at is None else now  # None: another answer has broken off meanwhile
        return replace(self, answering=self.answering - 1, answered_at=answered_at)

    def waking(
        self,
        now: float,
        since: float,
        phase: str | None = None,
        seconds: float | None = None,
        expected_seconds: float | None = None,
    ) -> ReadinessState:
        """It is waking `since` then or for so many `seconds`, whichever is longer; with each observation of one wake-up
        that can only become longer. `expected_seconds` is the model server's word."""
        was_waking = self.known(now) == "waking"
        last_phase = None if self.wake_up is None else self.wake_up.phase
        if seconds is not None:
            since = min(since, now - seconds)
        if was_waking and self.wake_up is not None:
            since = min(since, self.wake_up.since)
        changed = not was_waking or phase not in (None, last_phase)
        return replace(
            self,
            wake_up=WakeUp(since, now, phase or last_phase),
            told_seconds=self.told_seconds if expected_seconds is None else expected_seconds,
            revision=self.revision + changed,
        )

    def lost(self) -> ReadinessState:
        """A connection broke or was refused, or the wake-up was given up: nothing is known any more."""
        return replace(self, answered_at=None, ready_since=None, wake_up=None, revision=self.revision + 1)

    def received(self, status: ModelStatus, now: float) -> ReadinessState:
        """Another replica has observed this. What it takes for waking is no wake-up if the model is ready here."""
        before = self.at(now)
        match status.state:
            case "ready":
                return self.answered(now)
            case "waking" if before != "ready":
                return self.waking(now, now, status.phase, status.seconds, status.expected_seconds)
            case "unknown" if before == "waking":
                return self.lost()
            case _:
                return self
