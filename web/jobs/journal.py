"""What backends write of a job: that it has started, what comes on the way, and how it ended."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable

from contract import JobState, PictureResult, ProblemError, StatusEvent, TextResult, problems
from contract.events import LiveEvent
from web.jobs.record import Claim, JobRecord
from web.jobs.service_time import ServiceTime
from web.jobs.store import JobStore

QUEUED = StatusEvent(state="queued")


class JobJournal:
    """All methods raise an UNAVAILABLE problem when the store cannot be reached."""

    _claim: Claim | None = None
    _generation: int | None = None

    def __init__(self, store: JobStore) -> None:
        self._store = store
        # Not only of the models served here: a shared store has jobs of other replicas' models, too.
        self._service_times: defaultdict[str, ServiceTime] = defaultdict(ServiceTime)
        self._running: dict[str, str] = {}  # claimed jobs that have started, and the model of each

    def of_claim(self, claim: Claim) -> JobJournal:
        """The journal of a run. Its methods raise ClaimLost once the job is claimed again."""
        journal = copy.copy(self)
        journal._claim, journal._generation = claim, claim.generation
        return journal

    def leave(self, claim: Claim) -> None:
        """The run of a claim is over, however it ended."""
        self._running.pop(claim.job, None)

    async def find(self, job: str) -> JobRecord | None:
        return await self._store.get(job)

    async def start(self, job: str) -> bool:
        """The job is running now. False when it was running before, has ended, or is unknown."""
        if self._claim is not None:
            self._running[job] = self._claim.model
        return await self._store.start(job, time.time(), self._generation)

    async def reset(self, job: str, status: StatusEvent = QUEUED, *, attempts: int = 0) -> None:
        """The job is queued again: what the log holds of the last attempt does not count. `status` says so in the log;
        so many `attempts` are added to those that the job has had."""
        self._running.pop(job, None)
        await self._store.reset(job, self._generation, attempts)
        await self.append(job, [status])

    async def append(self, job: str, events: list[LiveEvent]) -> None:
        await self._store.append(job, [_entry(event) for event in events], self._generation)

    async def append_progress(self, job: str, reached: int, event: Callable[[int], LiveEvent]) -> None:
        """Append `event(before)` if `reached` is further than before. Progress may come late, twice and out of order.

        `reached` counts whatever the job counts in: steps, or characters.
        """
        await self._store.append_progress(job, reached, lambda before: _entry(event(before)), self._generation)

    async def end(self, job: str, outcome: TextResult | PictureResult | ProblemError) -> bool:
        """The job has ended so. False when it is unknown or had ended before: only the first end counts."""
        now = time.time()
        if isinstance(outcome, ProblemError):
            end: JobState = "cancelled" if outcome.kind is problems.CANCELLED else "failed"
            document = outcome.problem.model_dump_json(exclude_none=True)
        else:
            end, document = "completed", outcome.model_dump_json()
        ended = await self._store.finish(job, end, document, now, self._generation)
        if ended and end == "completed":
            record = await self._store.get(job)
            if record is not None and record.started is not None:
                parallel = sum(model == record.model for model in self._running.values())
                self._service_times[record.model].learn(now - record.started, max(1, parallel))
        return ended

    async def expire(self, job: str) -> bool:
        """End the job because its deadline has passed."""
        return await self.end(job, ProblemError(problems.TOO_LATE, "The time that the request was given is over."))

    def service_time(self, model: str) -> ServiceTime:
        """How long a generation of this model takes, from start to end."""
        return self._service_times[model]


def _entry(event: LiveEvent) -> tuple[str, str]:
    return event.event, event.model_dump_json()
