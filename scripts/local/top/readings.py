"""What the screen shows, from the looks of the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scripts.local.top.exposition import Exposition, mean
from scripts.local.top.look import Look
from scripts.local.top.wake_ups import WakeUp, WakeUps

WINDOW_SECONDS = 60.0
"""Of the mean of times to the first token, and of the rates of requests."""

RUNNING = "shangcai_web_num_requests_running"
JOB_RUNS = "shangcai_web_job_runs"
WAITING = "shangcai_web_num_requests_waiting"
GENERATION_TOKENS = "shangcai_web_generation_tokens_total"
ENDED = "shangcai_web_e2e_request_latency_seconds_count"
FIRST_TOKEN = "shangcai_web_time_to_first_token_seconds"  # noqa: S105 (no secret)
REQUESTS = "shangcai_web_requests_total"
OUR_ROUTE = "/status"
"""Of the looks themselves, which are not counted."""

JOBS = "shangcai_web_jobs"
JOBS_ENDED = "shangcai_web_jobs_ended_total"


@dataclass(frozen=True)
class ModelReading:
    """None is what is not known."""

    name: str
    state: str
    for_seconds: float | None
    phase: str | None
    expected_seconds: float | None
    slots: int | None
    running: int | None
    """Requests and jobs."""
    waiting: int | None
    tokens_per_second: float | None
    """Of generations that ended since the last look: web counts their tokens then."""
    first_token: float | None
    """Seconds, the mean of generations that ended in the window."""
    wake_up: WakeUp | None

    @property
    def used(self) -> int | None:
        """Slots; requests beyond them wait at the model, and all of them while it is not awake."""
        if self.running and self.state in ("asleep", "waking"):
            return 0
        return self.running if self.running is None or self.slots is None else min(self.running, self.slots)


@dataclass(frozen=True)
class Readings:
    where: str
    troubles: Sequence[str]
    models: Sequence[ModelReading]
    jobs: Mapping[str, int] | None
    """Open ones, by state; None without metrics."""
    jobs_ended: Mapping[str, int]
    """By state, since web was started."""
    seconds: float
    """Of the rates; 0 where there are none yet."""
    requests_per_second: float | None
    errors_per_second: float | None


class History:
    """The looks of the last WINDOW_SECONDS."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        self._wake_ups = WakeUps()

    def add(self, look: Look) -> Readings:
        """What is to be shown after this look."""
        before = self._before(look)
        window = self._window(look)
        self._looks.append(look)
        now = look.exposition or Exposition()
        self._wake_ups.add(look.exposition)
        counted = look.exposition is not None
        passed = None if before is None else look.at - before.at
        grown = now.since(before.exposition) if before and before.exposition else Exposition()
        lately = now.since(window.exposition) if window and window.exposition else Exposition()
        seconds = look.at - window.at if window else 0.0

        def model(document: Mapping[str, Any]) -> ModelReading:
            name = str(document["name"])
            running = int(sum(now.total(one, model=name) or 0 for one in (RUNNING, JOB_RUNS)))
            tokens = grown.total(GENERATION_TOKENS, model=name) or 0.0
            # It may be writing, and 0 would say that it does not.
            unknown = running > 0 and not tokens and not grown.total(ENDED, model=name)
            return ModelReading(
                name=name,
                state=str(document["state"]),
                for_seconds=document.get("seconds", _seconds_since(document.get("since"))),
                phase=document.get("phase"),
                expected_seconds=document.get("expected_seconds"),
                slots=look.slots.get(name),
                running=running if counted else None,
                waiting=int(now.total(WAITING, model=name) or 0) if counted else None,
                tokens_per_second=tokens / passed if passed and not unknown else None,
                first_token=mean(lately, FIRST_TOKEN, model=name),
                wake_up=self._wake_ups.latest.get(name),
            )

        looks = lately.by("status_class", REQUESTS, route=OUR_ROUTE)
        answered = {
            status: count - looks.get(status, 0.0) for status, count in lately.by("status_class", REQUESTS).items()
        }
        errors = sum(count for status, count in answered.items() if status.startswith("5"))
        return Readings(
            where=look.where,
            troubles=look.troubles,
            models=[model(document) for document in look.models],
            jobs={state: int(count) for state, count in now.by("state", JOBS).items()} if counted else None,
            jobs_ended={state: int(count) for state, count in now.by("state", JOBS_ENDED).items()},
            seconds=seconds,
            requests_per_second=sum(answered.values()) / seconds if seconds else None,
            errors_per_second=errors / seconds if seconds else None,
        )

    def _before(self, look: Look) -> Look | None:
        """The last look, where it and this one have seen metrics."""
        last = self._looks[-1] if self._looks else None
        return last if last and last.exposition and look.exposition else None

    def _window(self, look: Look) -> Look | None:
        """The last look before the window, or else the first one. Older ones are forgotten."""
        while len(self._looks) > 1 and self._looks[1].at <= look.at - WINDOW_SECONDS:
            self._looks.popleft()
        return next((one for one in self._looks if one.exposition), None) if look.exposition else None


def _seconds_since(since: str | None) -> float | None:
    if since is None:
        return None
    try:
        begun = datetime.fromisoformat(since)
    except ValueError:
        return None
    return max((datetime.now(UTC) - begun).total_seconds(), 0.0) if begun.tzinfo else None
