"""Whether a model is awake, as far as it can be seen from here.

web sees no pods and no processes. It sees answers, and how long they take:

- An answer: the model is ready. It is taken to be so while it answers anything and for an idle window after; then it is
  asleep, for by then whoever runs it may have sent it to sleep.
- Our own predictor's word that it is loading, in an answer or in an event: it is waking, and in which phase.
- Silence. While there is no pod, Knative's activator holds requests without a word. It does the same while all pods are
  busy. So a request that nobody answers for SILENCE_SECONDS finds the model asleep, and wakes it, if nothing has been
  seen of the model for an idle window; if it has answered something lately, or is answering something now, the request
  is queued.
- A connection that breaks, or is not taken: nothing is known any more.

On one machine scripts/run knows better, and reports it: see web.readiness.states_file.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from contract import Kind, ModelState, ModelStatus, ProblemError, StatusEvent, Waking, problems
from contract.cloudevents import written
from web.client.failures import RETRY_SECONDS
from web.readiness.states_file import ReportedState, StatesFile

log = logging.getLogger(__name__)

SILENCE_SECONDS = 0.5
"""A model server that is awake has begun to answer by then, if it is only to say that the request is queued."""

WAKES = 5
"""How many past wake-ups the next one is expected to be like."""

PHASE_CHARS = 100
"""Longest name of a phase that is passed on."""

_LOST = frozenset({problems.UNAVAILABLE, problems.BAD_UPSTREAM})


class Readiness:
    """Of one model. `idle_seconds` is the idle window, 0 where the model never sleeps; a wake-up of which nothing is
    heard any more is given up after `wake_seconds`."""

    def __init__(self, model: str, kind: Kind, idle_seconds: float, wake_seconds: float, reports: StatesFile) -> None:
        self.model = model
        self._kind: Kind = kind
        self._idle_seconds = idle_seconds or math.inf
        self._wake_seconds = wake_seconds
        self._reports = reports
        self._answering = 0
        self._awake_at: float | None = None
        self._answered_at: float | None = None
        self._waking_at: float | None = None
        self._heard_at = 0.0
        self._phase: str | None = None
        self._wakes: deque[float] = deque(maxlen=WAKES)
        self.bell = asyncio.Event()
        """Rings, and is replaced, whenever something has changed."""
        self.spread: Callable[[ModelStatus], None] | None = None
        """Is told what has changed, unless it was heard from another replica."""

    # What is known

    @property
    def state(self) -> ModelState:
        now = time.monotonic()
        if self._waking_at is not None and now - self._heard_at <= self._wake_seconds:
            return "waking"
        report = self._report
        if report is not None:
            return "unknown" if report.state == "failed" else report.state
        if self._answered_at is None:
            return "unknown"
        return "ready" if self._answering or now - self._answered_at <= self._idle_seconds else "asleep"

    @property
    def answering(self) -> bool:
        return self._answering > 0

    @property
    def sleeps(self) -> bool:
        """Whether it may be asleep: silence then says that it is waking."""
        return self._idle_seconds < math.inf and self.state in ("asleep", "unknown")

    @property
    def waking(self) -> Waking | None:
        if self.state != "waking":
            return None
        begun, phase = self._since, self._phase
        report = self._report
        if report is not None and report.state == "waking":
            phase = report.phase or phase
        return Waking(
            phase=phase,
            seconds=0.0 if begun is None else round(max(time.time() - begun, 0), 1),
            expected_seconds=self.expected_seconds,
        )

    @property
    def expected_seconds(self) -> float | None:
        report = self._report
        wakes = report.wake_seconds[-WAKES:] if report is not None else self._wakes
        return round(median(wakes), 1) if wakes else None

    @property
    def seconds_left(self) -> float | None:
        """Until it is expected to be awake; None where that cannot be said."""
        waking = self.waking
        if waking is None or waking.expected_seconds is None:
            return None
        return max(waking.expected_seconds - waking.seconds, 0.0)

    @property
    def status(self) -> ModelStatus:
        waking, since = self.waking, self._since
        return ModelStatus(
            name=self.model,
            kind=self._kind,
            state=self.state,
            since=None if since is None else written(since),
            phase=waking.phase if waking else None,
            seconds=waking.seconds if waking else None,
            expected_seconds=self.expected_seconds,
        )

    def events(self, *, slept: bool) -> Iterator[StatusEvent]:
        """What to tell of a model that is waking; that it `slept` first."""
        waking = self.waking
        if waking is not None:
            if slept:
                yield StatusEvent(state="asleep", expected_seconds=waking.expected_seconds)
            yield StatusEvent(state="waking", **waking.model_dump())

    @property
    def retry_after(self) -> int:
        """Seconds until it is worth asking again."""
        left = self.seconds_left
        return RETRY_SECONDS if left is None else max(1, math.ceil(left))

    def problem(self) -> ProblemError:
        """Why a request cannot wait any longer for a model that is waking."""
        waking = self.waking
        told = waking.model_dump(exclude_none=True) if waking else {}
        phase = f", {waking.phase}" if waking and waking.phase else ""
        so_far = f" for {waking.seconds:g} s" if waking else ""
        return ProblemError(
            problems.LOADING,
            f"Model {self.model} has been waking up{so_far}{phase}, which takes longer than this request can wait.",
            retry_after=self.retry_after,
            **told,
        )

    def check_wait(self, seconds: float) -> None:
        """Raise the problem if it is waking, and is not expected to be awake in so many seconds."""
        left = self.seconds_left
        if left is not None and left > seconds:
            raise self.problem()

    # What is seen

    def answered(self) -> None:
        now = time.monotonic()
        changed = self.state != "ready"
        if self._waking_at is not None:
            self._wakes.append(now - self._waking_at)
            log.info("%s woke up in %.1f s", self.model, now - self._waking_at)
        self._waking_at = self._phase = None
        self._answered_at = now
        if changed:
            self._awake_at = now
            self._ring()

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Around an answer, while it comes."""
        self.answered()
        self._answering += 1
        try:
            yield
        except ProblemError as error:
            self.failed(error)
            raise
        finally:
            self._answering -= 1
            if self._answered_at is not None:  # unless another answer has broken off meanwhile
                self._answered_at = time.monotonic()

    def wakes(self, begun: float, phase: str | None = None, seconds: float | None = None) -> None:
        """It is waking: since `begun` (on the clock of `time.monotonic`) or for so many seconds, whichever is more."""
        now = time.monotonic()
        begun = begun if seconds is None else min(begun, now - seconds)
        changed = self.state != "waking" or phase not in (None, self._phase)
        if self.state == "waking" and self._waking_at is not None:
            begun = min(begun, self._waking_at)
        elif changed:
            log.info("%s is waking up", self.model)
        self._waking_at, self._heard_at = begun, now
        self._phase = phase or self._phase
        if changed:
            self._ring()

    def failed(self, error: ProblemError, begun: float | None = None) -> None:
        """A request that began then, or had been answered before, has ended so: what that says of the model."""
        if error.kind is problems.LOADING and begun is not None:
            more = error.problem.model_extra or {}
            phase, seconds = more.get("phase"), more.get("seconds")
            self.wakes(
                begun,
                phase[:PHASE_CHARS] if isinstance(phase, str) else None,
                min(max(seconds, 0), self._wake_seconds) if isinstance(seconds, int | float) else None,
            )
        elif error.kind in _LOST:
            self.lost()
        elif error.kind.status < 500:
            self.answered()
        # Of the others some are our own, and say nothing.

    def lost(self) -> None:
        self._waking_at = self._phase = self._answered_at = self._awake_at = None
        self._ring()

    def hear(self, status: ModelStatus) -> None:
        """What another replica has seen. Of a model that is awake here, silence was a queue."""
        before, spread, self.spread = self.state, self.spread, None
        try:
            match status.state:
                case "ready":
                    self.answered()
                case "waking" if before != "ready":
                    self.wakes(time.monotonic(), status.phase, status.seconds)
                case "unknown" if before == "waking":
                    self.lost()
        finally:
            self.spread = spread
        if spread is not None and (status.state, before) == ("waking", "ready"):
            spread(self.status)

    def _ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()
        if self.spread is not None:
            self.spread(self.status)

    @property
    def _report(self) -> ReportedState | None:
        return self._reports.of(self.model)

    @property
    def _since(self) -> float | None:
        """When the state began, in seconds since 1970."""
        report = self._report
        if report is not None and report.state == self.state:
            return report.since
        match self.state:
            case "waking":
                begun = self._waking_at
            case "ready":
                begun = self._awake_at
            case "asleep":  # or since some time after
                begun = self._answered_at
            case "unknown":
                begun = None
        return None if begun is None else time.time() - (time.monotonic() - begun)
