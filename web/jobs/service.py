"""Generations that outlive the connection they were asked for on: from a request to an end, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import secrets
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from contract import (
    ENDS,
    GenerationRequest,
    Job,
    JobState,
    PictureResult,
    Problem,
    ProblemError,
    StatusEvent,
    TextResult,
    problems,
)
from contract.cloudevents import written
from contract.events import LiveEvent
from contract.problems import raised
from contract.result import RESULT
from web.jobs.service_time import ServiceTime
from web.jobs.store import BEGINNING, Claim, JobRecord, JobStore, LogEntry

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

log = logging.getLogger(__name__)

REAP_SECONDS = 1.0
"""How often it is looked for jobs whose time is over."""

KEEP_SECONDS = 5.0
"""How often claims are kept up; a third of the lease."""

MOST_ATTEMPTS = 4
"""Of a job whose model server, or whose web replica, broke off in the middle."""

RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 30.0
"""Between two attempts, where the model server does not say."""


class Backend(Protocol):
    """How a job gets to a predictor."""

    async def run(self, record: JobRecord, jobs: JobService) -> None:
        """Bring it on its way, or to its end. A transient ProblemError: to be tried again; any other: its end."""

    async def cancel(self, record: JobRecord) -> None:
        """It was ended before its time. A `run` that is busy with it is cancelled besides."""


class JobService:
    """Jobs of one replica and, where the store is shared, of all others."""

    def __init__(self, settings: Settings, store: JobStore, way: Backend) -> None:
        self._settings = settings
        self._store = store
        self._way = way
        self._paces: defaultdict[str, ServiceTime] = defaultdict(
            ServiceTime
        )  # a shared store has other replicas' models, too
        self._claims: set[Claim] = set()
        self._runs: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin to work on what is queued. An UNAVAILABLE problem when the store cannot be reached."""
        await self._store.open()
        loops = [self._work(model) for model in self._settings.models]
        self._loops = [asyncio.create_task(loop) for loop in (*loops, self._reap(), self._keep())]

    async def close(self, seconds: float) -> None:
        """Leave what is not finished to the other replicas, or to the next one; where there is no other, finish what
        can be finished in so many seconds."""
        for loop in self._loops:
            loop.cancel()
        if self._runs and not self._store.shared:
            await asyncio.wait(self._runs, timeout=seconds)
        for run in self._runs:
            run.cancel()
        if self._loops:
            await asyncio.wait({*self._loops, *self._runs})
        await self._store.close()

    # Asking

    async def submit(
        self,
        sent: GenerationRequest,
        order: GenerationRequest,
        model: str,
        seconds: float,
        headers: dict[str, str],
        *,
        key: str | None,
    ) -> JobRecord:
        """A new job for `order`; or the one that was made with this `key` before, unless what was `sent` then was
        something else (KEY_REUSED)."""
        body = sent.model_dump_json(exclude={"stream"}, exclude_none=True)
        now = time.time()
        # An attempt after the first one, and a redelivery, are to say the same again; and whoever it gets to is to know
        # which model was chosen.
        seed = secrets.randbits(32) if order.seed is None else order.seed
        order = order.model_copy(update={"seed": seed, "model": model})
        record = JobRecord(
            id=uuid.uuid4().hex if key is None else hashlib.sha256(f"shangcai:{key}".encode()).hexdigest()[:32],
            model=model,
            kind=self._settings.models[model].kind,
            order=order.model_dump_json(exclude={"stream"}, exclude_none=True),
            digest=hashlib.sha256(f"{model} {body}".encode()).hexdigest(),
            created=now,
            deadline=now + seconds,
            headers=headers,
        )
        if await self._store.open_jobs() >= self._settings.max_jobs and await self._store.get(record.id) is None:
            raise ProblemError(
                problems.OVERLOADED,
                f"{self._settings.max_jobs} generations are queued or running; no more are taken.",
                retry_after=self._paces[model].seconds,
            )
        kept = await self._store.add(record)
        if kept.digest != record.digest:
            raise ProblemError(
                problems.KEY_REUSED, "The first request with this Idempotency-Key asked for something else."
            )
        return kept

    async def find(self, job: str) -> JobRecord:
        """A NOT_FOUND problem when it is unknown, or forgotten."""
        record = await self._store.get(job)
        if record is None:
            keep = self._settings.job_keep_seconds
            detail = f"There is no generation of this id; one is forgotten {keep:g} s after its end."
            raise ProblemError(problems.NOT_FOUND, detail)
        if record.ended is None and record.deadline <= time.time():
            await self._expire(record.id)
            return await self.find(job)
        return record

    async def known(self, job: str) -> JobRecord | None:
        return await self._store.get(job)

    async def document(self, record: JobRecord) -> Job:
        return Job(
            id=record.id,
            state=record.state,
            model=record.model,
            kind=record.kind,
            position=await self.position(record),
            created_at=written(record.created),
            started_at=None if record.started is None else written(record.started),
            ended_at=None if record.ended is None else written(record.ended),
            deadline_at=written(record.deadline),
            result=result_of(record) if record.state == "completed" else None,
            error=Problem.model_validate_json(record.outcome or "")
            if record.state in ("failed", "cancelled")
            else None,
        )

    async def position(self, record: JobRecord) -> int | None:
        """How many are before it, while it is queued."""
        return await self._store.position(record) if record.state == "queued" else None

    async def retry_after(self, record: JobRecord) -> int:
        """Seconds until it is worth asking for it again."""
        before = await self._store.position(record) or 0
        rounds = 1 + before // self._settings.max_job_runs
        return max(1, math.ceil(rounds * self._paces[record.model].seconds))

    def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        return self._store.watch(job, after)

    async def outcome(self, job: str, seconds: float | None) -> JobRecord:
        """Wait for its end, for so long at most; the job as it then is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._store.ended(job)
        return await self.find(job)

    async def cancel(self, job: str) -> JobRecord:
        """End it, if it has not ended: nothing is computed for it from the next token or step on."""
        problem = ProblemError(problems.CANCELLED, "The generation was cancelled before its end.")
        if await self.end(job, problem):
            await self._way.cancel(await self.find(job))
        return await self.find(job)

    # Telling

    async def start(self, job: str) -> bool:
        return await self._store.start(job, time.time())

    async def tell(self, job: str, events: list[LiveEvent]) -> None:
        await self._store.tell(job, [(event.event, event.model_dump_json()) for event in events])

    async def advance(self, job: str, told: int, event: Callable[[int], LiveEvent]) -> None:
        """Tell what may come late, twice and out of order: only what goes further than before, which `event` gets."""

        def entry(before: int) -> tuple[str, str]:
            made = event(before)
            return made.event, made.model_dump_json()

        await self._store.advance(job, told, entry)

    async def end(self, job: str, outcome: TextResult | PictureResult | ProblemError) -> bool:
        """False when it is unknown or has ended before: of two ends only the first counts."""
        now = time.time()
        if isinstance(outcome, ProblemError):
            end: JobState = "cancelled" if outcome.kind is problems.CANCELLED else "failed"
            document = outcome.problem.model_dump_json(exclude_none=True)
        else:
            end, document = "completed", outcome.model_dump_json()
        ended = await self._store.finish(job, end, document, now)
        if ended and end == "completed":
            record = await self._store.get(job)
            if record is not None and record.started is not None:
                self._paces[record.model].learn(now - record.started)
        return ended

    # Working

    async def _work(self, model: str) -> None:
        """Bring jobs of one model on their way, so many at a time."""
        places = asyncio.Semaphore(self._settings.max_job_runs)

        def leave(run: asyncio.Task[None]) -> None:
            self._runs.discard(run)
            places.release()

        while True:
            await places.acquire()
            try:
                claim = await self._store.take(model)
            except ProblemError:  # the store is out of reach; what it said is in the log
                places.release()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if claim in self._claims:  # the lease ran out, in an outage perhaps, but the work goes on
                places.release()
                continue
            self._claims.add(claim)
            run = asyncio.create_task(self._run(claim))
            self._runs.add(run)
            run.add_done_callback(leave)

    async def _run(self, claim: Claim) -> None:
        try:
            await self._bring(claim.job)
            await self._store.done(claim)
        except asyncio.CancelledError:
            with suppress(ProblemError):
                await self._store.release(claim)
            raise
        except ProblemError as error:  # the store: the lease runs out, and the job is taken up again
            log.warning("job %s is left where it is: %s", claim.job, error)
        except Exception:
            log.exception("job %s failed", claim.job)
            with suppress(ProblemError):
                await self.end(claim.job, ProblemError(problems.INTERNAL, "Something went wrong on the server."))
                await self._store.done(claim)
        finally:
            self._claims.discard(claim)

    async def _bring(self, job: str) -> None:
        """Until it has ended, or somebody else is going to end it."""
        while (record := await self._store.get(job)) is not None and record.ended is None:
            if record.attempts >= MOST_ATTEMPTS:
                detail = f"It was begun {record.attempts} times and broken off each time."
                await self.end(job, ProblemError(problems.UNDELIVERED, detail))
                return
            if record.deadline <= time.time():
                await self._expire(job)
                return
            if record.started is not None:  # by a replica that is no more
                await self._void(job)
            try:
                await self._unless_ended(job, self._way.run(record, self))
                return
            except ProblemError as error:
                if not error.kind.transient:
                    await self.end(job, error)
                    return
                log.info("job %s waits: %s", job, error)
                await self._again(record, error)

    async def _unless_ended(self, job: str, work: Coroutine[Any, Any, object]) -> None:
        """Give the work up when somebody else ends the job, as a DELETE does."""
        run = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self._store.ended(job))
        try:
            await asyncio.wait({run, ended}, return_when=asyncio.FIRST_COMPLETED)
            (run if run.done() else ended).result()  # or the problem: of the work, or of the store
        finally:
            run.cancel()
            ended.cancel()
            await asyncio.wait({run, ended})

    async def _again(self, record: JobRecord, error: ProblemError) -> None:
        """Wait until it is worth another attempt."""
        current = await self._store.get(record.id)
        if current is not None and current.started is not None:
            await self._void(record.id)
        wait = min(error.problem.retry_after or RETRY_SECONDS, MOST_RETRY_SECONDS)
        left = record.deadline - time.time()
        if wait >= left:
            error = ProblemError(problems.TOO_LATE, f"The time was over; the last attempt ended so: {error}")
            await self.end(record.id, error)
            return
        await self._unless_ended(record.id, asyncio.sleep(wait * (0.5 + secrets.randbelow(1_000) / 1_000)))

    async def _void(self, job: str) -> None:
        """What was told of the last attempt does not count."""
        await self._store.restart(job)
        await self.tell(job, [StatusEvent(state="queued")])

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if self._claims:
                with suppress(ProblemError):
                    await self._store.keep(list(self._claims))

    async def _reap(self) -> None:
        """End what is open after its deadline, whoever was to end it."""
        while True:
            with suppress(ProblemError):
                for job in await self._store.overdue(time.time()):
                    await self._expire(job)
            await asyncio.sleep(REAP_SECONDS)

    async def _expire(self, job: str) -> None:
        await self.end(job, ProblemError(problems.TOO_LATE, "The time that the request was given is over."))


def result_of(record: JobRecord) -> TextResult | PictureResult:
    """Of a completed job; the problem is raised that any other one ended with."""
    assert record.state in ENDS
    if record.state == "completed":
        return RESULT.validate_json(record.outcome or "")
    raise raised(_problem_of(record))


def _problem_of(record: JobRecord) -> Problem:
    return Problem.model_validate_json(record.outcome or "")
