"""What backends write of a job: that it has started, what comes on the way, and how it ended."""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from contract import JobState, PictureResult, ProblemError, StatusEvent, TextResult, problems
from contract.events import LiveEvent
from web.jobs.record import Claim, JobRecord
from web.jobs.results import Results, for_older_replicas
from web.jobs.service_time import ServiceTime
from web.jobs.store import JobStore

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Before a result is written again; doubled each time."""

MOST_RETRY_SECONDS = 15.0

KEEP_TRYING_SECONDS = 60.0
"""How long the write of a result is tried before the job may end with the problem that keeps it from being stored."""

QUEUED = StatusEvent(state="queued")


class JobJournal:
    """All methods raise an UNAVAILABLE problem when the store cannot be reached."""

    ending: JobState | None = None
    """What the run of a claim has ended its job with, or is just about to."""
    _claim: Claim | None = None
    _generation: int | None = None

    def __init__(self, store: JobStore, results: Results | None = None) -> None:
        self._store = store
        self.results = results or Results(None)
        # Not only of the models served here: a shared store has jobs of other replicas' models, too.
        self._service_times: defaultdict[str, ServiceTime] = defaultdict(ServiceTime)
        self._running: dict[str, str] = {}  # claimed jobs that have started, and the model of each
        self._passed_on: dict[str, float | None] = {}  # claimed jobs, and since when each waits for a model server

    def of_claim(self, claim: Claim) -> JobJournal:
        """The journal of a run. Its methods raise ClaimLost once the job is claimed again."""
        journal = copy.copy(self)
        journal._claim, journal._generation = claim, claim.generation
        self._passed_on[claim.job] = None
        return journal

    def leave(self, claim: Claim) -> None:
        """The run of a claim is over, however it ended."""
        self._running.pop(claim.job, None)
        self._passed_on.pop(claim.job, None)

    def passed_on(self, job: str) -> None:
        """A claimed job was passed on to its model server, of which nothing is heard yet."""
        self._passed_on[job] = time.monotonic()

    def heard_of(self, job: str) -> None:
        """Its model server has said something of it, or it is queued here again."""
        if job in self._passed_on:
            self._passed_on[job] = None

    def silent_seconds(self, job: str) -> float | None:
        """How long nothing was heard of a job since it was passed on; 0 where it is not, or was heard of, and None
        where this replica has not claimed it."""
        if job not in self._passed_on:
            return None
        since = self._passed_on[job]
        return 0.0 if since is None else time.monotonic() - since

    async def now(self) -> float:
        """See JobStore."""
        return await self._store.now()

    async def find(self, job: str) -> JobRecord | None:
        return await self._store.get(job)

    async def start(self, job: str) -> bool:
        """The job is running now. False when it was running before, has ended, or is unknown."""
        if self._claim is not None:
            self._running[job] = self._claim.model
        return await self._store.start(job, await self.now(), self._generation)

    async def reset(self, job: str, status: StatusEvent = QUEUED, *, attempts: int = 0) -> None:
        """The job is queued again: what the log holds of the last attempt does not count. `status` says so in the log;
        so many `attempts` are added to those that the job has had."""
        self._running.pop(job, None)
        self.heard_of(job)
        await self._store.reset(job, self._generation, attempts)
        await self.append(job, [status])

    async def append(self, job: str, events: list[LiveEvent]) -> None:
        await self._store.append(job, [_entry(event) for event in events], self._generation)

    async def append_progress(self, job: str, reached: int, event: Callable[[int], LiveEvent]) -> None:
        """Append `event(before)` if `reached` is further than before. Progress may come late, twice and out of order.

        `reached` counts whatever the job counts in: steps, or characters.
        """
        await self._store.append_progress(job, reached, lambda before: _entry(event(before)), self._generation)

    async def end(
        self, job: str, outcome: TextResult | PictureResult | ProblemError, *, artifact: str | None = None
    ) -> bool:
        """The job has ended so. False when it is unknown or had ended before: only the first end counts. `artifact` is
        where the result is already."""
        if isinstance(outcome, ProblemError):
            end: JobState = "cancelled" if outcome.kind is problems.CANCELLED else "failed"
            document = outcome.problem.model_dump_json(exclude={"instance"}, exclude_none=True)  # of many requests
            self.ending = end
            return await self._store.finish(job, end, document, await self.now(), self._generation)
        document = outcome.model_dump_json()
        return await self._end_with_result(job, document, artifact or await self.results.put(job, document))

    async def complete(self, record: JobRecord, result: TextResult | PictureResult) -> None:
        """End the job with its result, as `until_stored` does."""
        document = result.model_dump_json()
        artifact: str | None = None

        async def write() -> None:
            nonlocal artifact
            artifact = artifact or await self.results.put(record.id, document)
            if not await self._end_with_result(record.id, document, artifact):
                stored = await self._store.get(record.id)
                if stored is None or stored.artifact != artifact:  # or an earlier write was done, and its answer lost
                    await self.results.delete(artifact)

        await self.until_stored(record, write)

    async def until_stored(self, record: JobRecord, write: Callable[[], Awaitable[None]]) -> None:
        """Try the write again and again until the job's deadline: what was generated is not generated again because it
        could not be stored.

        Where it cannot be stored for a while but a problem can, because the store is full, or the artifacts are full or
        away, the job ends with that. Raises the last problem at the deadline.
        """
        begun, wait = await self.now(), RETRY_SECONDS
        while True:
            try:
                await write()
                return
            except ProblemError as error:
                log.warning("job %s: what it has made is not stored yet: %s", record.id, error)
                now = await self.now()
                if now - begun >= KEEP_TRYING_SECONDS:
                    detail = f"What was generated could not be stored: {error}"
                    with suppress(ProblemError):
                        await self.end(record.id, ProblemError(error.kind, detail, retry_after=wait))
                        return
                if now + wait >= record.deadline:
                    raise
            await asyncio.sleep(wait * (0.5 + secrets.randbelow(1_000) / 1_000))
            wait = min(2 * wait, MOST_RETRY_SECONDS)

    async def _end_with_result(self, job: str, document: str, artifact: str | None) -> bool:
        now = await self.now()
        if artifact:
            document = for_older_replicas().problem.model_dump_json(exclude_none=True)
        self.ending = "completed"
        ended = await self._store.finish(job, "completed", document, now, self._generation, artifact)
        if ended:
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
