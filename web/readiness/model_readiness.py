"""What is observed of one model, and what that says of it: see the table in web.readiness."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from contract import Kind, ModelState, ModelStatus, ProblemError, StatusEvent, Waking, problems
from contract.cloudevents import written
from web.client.failures import RETRY_SECONDS
from web.readiness.state import ReadinessState, WakeUp
from web.readiness.states_file import Reports

log = logging.getLogger(__name__)

FIRST_STATUS_SECONDS = 0.05
"""Within so much of its coming a client hears what a request waits for: half of what it is promised, 0.1 s. A model
server that is awake and not far away has begun its answer by then, and its word is the first."""

PHASE_CHARS = 100
"""Longest name of a phase that is passed on."""

Origin = Literal["local", "received"]
"""Whether a change was observed here, or received from another replica."""

_LOST = frozenset({problems.UNAVAILABLE, problems.BAD_UPSTREAM})


class Readiness:
    """Of one model: takes what is observed, answers questions about it, and notifies of changes.

    `idle_seconds` is the idle window, 0 for a model that never sleeps. A wake-up that was not observed for
    `wake_seconds` counts as given up.
    """

    def __init__(self, model: str, kind: Kind, idle_seconds: float, wake_seconds: float, reports: Reports) -> None:
        self.model = model
        self._kind: Kind = kind
        self._reports = reports
        self._state = ReadinessState(idle_seconds or math.inf, wake_seconds)
        self._changed = asyncio.Event()  # set, and replaced by a new one, at every change
        self._subscribers: list[Callable[[ModelStatus, Origin], None]] = []
        self._answered_at: float | None = None

    def subscribe(self, notify: Callable[[ModelStatus, Origin], None]) -> None:
        """Call `notify` at every change."""
        self._subscribers.append(notify)

    def changed(self) -> Coroutine[Any, Any, object]:
        """Wait for the next change: from this call on, not from when the waiting begins."""
        return self._changed.wait()

    # What is known

    @property
    def state(self) -> ModelState:
        return self._current.at(time.monotonic())

    @property
    def answering(self) -> bool:
        return self._state.answering > 0

    @property
    def observed_at(self) -> float | None:
        """When it was last seen to answer here, of `time.monotonic`."""
        return time.monotonic() if self.answering else self._answered_at

    @property
    def reported(self) -> str | None:
        """What is reported of it, by those who can see it."""
        report = self._current.report
        return None if report is None else report.state

    @property
    def may_sleep(self) -> bool:
        """Whether silence may be that of a model that is asleep or waking."""
        return self._state.idle_seconds < math.inf and not self.answering and self.reported != "ready"

    @property
    def seems_asleep(self) -> bool:
        """Whether it has not been observed to be awake within its idle window, so that silence of a question means
        that it is waking."""
        return self.may_sleep and self._current.known(time.monotonic()) in ("asleep", "unknown")

    @property
    def waking(self) -> Waking | None:
        if self.state != "waking":
            return None
        since = self._since
        return Waking(
            phase=self._current.phase,
            seconds=0.0 if since is None else round(max(time.time() - since, 0), 1),
            expected_seconds=self.expected_seconds,
        )

    @property
    def wake_up(self) -> WakeUp | None:
        """The one that is going on, or was when the model was last heard of."""
        return self._state.wake_up

    @property
    def past_wake_ups(self) -> tuple[float, ...]:
        return self._state.past_wake_ups

    @property
    def expected_seconds(self) -> float | None:
        """How long it is expected to take from asleep to ready; None where that is not known."""
        return self._current.expected_seconds

    @property
    def seconds_left(self) -> float | None:
        """Until it is expected to be ready; None where it is not waking or that is not known."""
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
        """The status events of a model that is waking; with `slept`, one that it was asleep before them."""
        waking = self.waking
        if waking is not None:
            if slept:
                yield StatusEvent(state="asleep", expected_seconds=waking.expected_seconds)
            yield StatusEvent(state="waking", **waking.model_dump())

    @property
    def retry_after(self) -> int:
        """Seconds until it is worth asking again: what is left of the wake-up."""
        left = self.seconds_left
        return RETRY_SECONDS if left is None else max(1, math.ceil(left))

    def problem(self) -> ProblemError:
        """Why a request cannot wait any longer for a model that is waking."""
        waking = self.waking
        members = waking.model_dump(exclude_none=True) if waking else {}
        phase = waking.phase if waking else None
        so_far = f"{waking.seconds:g} s so far" if waking and waking.seconds else None
        known = ", ".join(filter(None, (phase, so_far)))
        progress = f" ({known})" if known else ""
        return ProblemError(
            problems.LOADING,
            f"Model {self.model} is waking up{progress}, which takes longer than this request can wait.",
            retry_after=self.retry_after,
            **members,
        )

    def check_wait(self, seconds: float) -> None:
        """Raise the problem if the model is waking and is not expected to be ready within so many seconds."""
        left = self.seconds_left
        if left is not None and left > seconds:
            raise self.problem()

    # What is observed

    @contextmanager
    def silence(self, begun: float) -> Iterator[None]:
        """Around the wait for the answer to a request or a question that began then (of `time.monotonic`)."""
        self._update(self._state.asks(begun))
        try:
            yield
        finally:
            self._update(self._state.asked_no_more(begun))

    def note_request(self, begun: float) -> None:
        """A request that began then has no answer yet, nor has a question. It wakes a model that is reported asleep."""
        if self.reported == "asleep" and self.state != "waking":
            self.wakes(begun)

    def note_question(self, begun: float) -> None:
        """The question whether it is ready, which began then, has had no answer for SILENCE_SECONDS."""
        if self.seems_asleep:
            silent_since = self._state.silent_since
            self.wakes(begun if silent_since is None else min(begun, silent_since))

    def ask_replicas(self) -> None:
        """Whether it is answering one of them."""
        self._tell(self.status.model_copy(update={"state": "pending"}), "local")

    def answered(self) -> None:
        self._answered_at = time.monotonic()
        self._update(self._current.answered(time.monotonic()))

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Around an answer, from its beginning to its end."""
        self.answered()
        self._update(self._state.answer_begun())
        try:
            yield
        except ProblemError as error:
            self.failed(error)
            raise
        finally:
            self._answered_at = time.monotonic()
            self._update(self._state.answer_ended(self._answered_at))

    def wakes(
        self,
        since: float,
        phase: str | None = None,
        seconds: float | None = None,
        expected_seconds: float | None = None,
    ) -> None:
        """It is waking: `since` then (of `time.monotonic`) or for so many seconds, whichever is longer. The model
        server says that it takes `expected_seconds`."""
        self._update(self._current.waking(time.monotonic(), since, phase, seconds, expected_seconds))

    def failed(self, error: ProblemError, begun: float | None = None) -> None:
        """A request has failed. `begun` is when it began (of `time.monotonic`), None if it was being answered."""
        if error.kind is problems.LOADING and begun is not None:
            members = error.problem.model_extra or {}
            phase = members.get("phase")
            self.wakes(
                begun,
                phase[:PHASE_CHARS] if isinstance(phase, str) else None,
                self._told(members.get("seconds")),
                self._told(members.get("expected_seconds")),
            )
        elif error.kind in _LOST:
            self.lost()
        elif error.kind.status < 500:
            self.answered()
        # Other problems may come from web itself, and say nothing of the model.

    def _told(self, seconds: object) -> float | None:
        """Seconds of a wake-up, as a model server says them, within bounds."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
            return None  # the last is nan
        return float(min(max(seconds, 0.0), self._state.wake_seconds))

    def lost(self) -> None:
        """Nothing is known of it any more."""
        self._update(self._current.lost())

    def receive(self, status: ModelStatus) -> None:
        """Another replica has observed this."""
        before = self.state
        self._update(self._current.received(status, time.monotonic()), "received")
        wrong = status.state == "waking" and before == "ready"  # see ReadinessState.received
        if wrong or (status.state == "pending" and self.answering):
            self.repeat()

    def repeat(self) -> None:
        """Notify as of a change."""
        self._tell(self.status, "local")

    def _update(self, new: ReadinessState, origin: Origin = "local") -> None:
        old, self._state = self._current, new
        if new.past_wake_ups != old.past_wake_ups:
            log.info("%s woke up in %.1f s", self.model, new.past_wake_ups[-1])
        if new.revision == old.revision:
            return
        now = time.monotonic()
        if new.at(now) == "waking" and old.at(now) != "waking":
            log.info("%s is waking up", self.model)
        self.note_change()
        self._tell(self.status, origin)

    def note_change(self) -> None:
        """Something is known of it that was not: wake those who wait for that here."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, status: ModelStatus, origin: Origin) -> None:
        for notify in self._subscribers:
            notify(status, origin)

    @property
    def _current(self) -> ReadinessState:
        """With what is reported now."""
        return self._state.reported(self._reports.of(self.model))

    @property
    def _since(self) -> float | None:
        """When the state of now began, in seconds since 1970."""
        current, now = self._current, time.monotonic()
        if current.report is not None and current.report.state == current.at(now):
            return current.report.since
        since = current.since(now)
        return None if since is None else time.time() - (now - since)
