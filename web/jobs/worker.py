"""Works on queued jobs: claims them, has a backend run them, tries again, and ends those whose time is over."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from contract import ProblemError, problems
from web.jobs.store import ClaimLost
from wire.first_of_two import finishes_first

if TYPE_CHECKING:  # see web.rest.upstream
    from web.jobs.backend import Backend
    from web.jobs.journal import JobJournal
    from web.jobs.record import Claim, JobRecord
    from web.jobs.store import JobStore
    from web.settings import Settings

log = logging.getLogger(__name__)

REAP_SECONDS = 1.0
"""Between two searches for jobs whose deadline has passed."""

RENEW_SECONDS = 5.0
"""Between two renewals of claims: a third of the lease."""

MOST_ATTEMPTS = 4
"""Of a job whose predictor, or whose replica of web, broke off in the middle."""

RETRY_SECONDS = 1.0
"""Before another attempt where the predictor does not say when, and before the store is asked again."""

MOST_RETRY_SECONDS = 30.0
"""Longest wait before another attempt, whatever the predictor says."""


class JobWorker:
    """Runs up to `max_job_runs` jobs of each model at a time."""

    def __init__(self, settings: Settings, store: JobStore, journal: JobJournal, backend: Backend) -> None:
        self._settings = settings
        self._store = store
        self._journal = journal
        self._backend = backend
        self._claims: dict[Claim, asyncio.Task[None]] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    def open(self) -> None:
        loops = [self._claim_jobs(model) for model in self._settings.models]
        self._loops = [asyncio.create_task(loop) for loop in (*loops, self._reap(), self._renew_claims())]

    async def close(self, seconds: float) -> None:
        """Claim no more jobs. Running ones are released to other replicas; where the store is not shared there are
        none, so that they get so many seconds to end first."""
        for loop in self._loops:
            loop.cancel()
        if self._runs and not self._store.shared:
            await asyncio.wait(self._runs, timeout=seconds)
        for run in self._runs:
            run.cancel()
        if self._loops:
            await asyncio.wait({*self._loops, *self._runs})

    async def _claim_jobs(self, model: str) -> None:
        free = asyncio.Semaphore(self._settings.max_job_runs)

        def discard(run: asyncio.Task[None]) -> None:
            self._runs.discard(run)
            free.release()

        while True:
            await free.acquire()
            try:
                claim = await self._store.claim(model)
            except ProblemError:  # the store cannot be reached, which it has logged
                free.release()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if claim in self._claims:  # the lease ran out, in an outage perhaps, but the job is still running here
                free.release()
                continue
            run = asyncio.create_task(self._run(claim))
            self._claims[claim] = run
            self._runs.add(run)
            run.add_done_callback(discard)

    async def _run(self, claim: Claim) -> None:
        try:
            await self._try_until_done(claim)
            await self._store.acknowledge(claim)
        except asyncio.CancelledError:
            with suppress(ProblemError):
                await self._store.release(claim)
            raise
        except ClaimLost:  # this replica was away for longer than its lease
            log.warning("job %s is given up: it was claimed again", claim.job)
        except ProblemError as error:  # of the store: once the lease has run out the job is claimed again
            log.warning("job %s is left to its lease: %s", claim.job, error)
        except Exception:
            log.exception("job %s failed", claim.job)
            with suppress(ProblemError, ClaimLost):
                problem = ProblemError(problems.INTERNAL, "Something went wrong on the server.")
                await self._journal.of_claim(claim).end(claim.job, problem)
                await self._store.acknowledge(claim)
        finally:
            self._claims.pop(claim, None)

    async def _try_until_done(self, claim: Claim) -> None:
        """Return once the job has ended, or the predictor has taken it and will send its end."""
        job, journal = claim.job, self._journal.of_claim(claim)
        while (record := await self._store.get(job)) is not None and record.ended is None:
            if record.attempts >= MOST_ATTEMPTS:
                detail = f"It was begun {record.attempts} times and broken off each time."
                await journal.end(job, ProblemError(problems.UNDELIVERED, detail))
                return
            if record.deadline <= time.time():
                await journal.expire(job)
                return
            if record.started is not None:  # by a replica that died
                await journal.reset(job)
            try:
                await self._unless_ended(job, self._backend.run(record, journal))
                return
            except ProblemError as error:
                if not error.kind.transient:
                    await journal.end(job, error)
                    return
                log.info("job %s waits: %s", job, error)
                await self._wait_for_next_attempt(record, journal, error)

    async def _unless_ended(self, job: str, work: Coroutine[Any, Any, object]) -> None:
        """Do the work, but give it up when the job ends elsewhere, as after a DELETE."""
        ended = asyncio.ensure_future(self._store.wait_for_end(job))
        try:
            if not await finishes_first(work, ended):
                ended.result()  # or the store's problem
        finally:
            ended.cancel()
            await asyncio.wait({ended})

    async def _wait_for_next_attempt(self, record: JobRecord, journal: JobJournal, error: ProblemError) -> None:
        current = await self._store.get(record.id)
        if current is not None and current.started is not None:
            await journal.reset(record.id)
        wait = min(error.problem.retry_after or RETRY_SECONDS, MOST_RETRY_SECONDS)
        if wait >= record.deadline - time.time():
            error = ProblemError(problems.TOO_LATE, f"The time was over; the last attempt ended so: {error}")
            await journal.end(record.id, error)
            return
        jitter = 0.5 + secrets.randbelow(1_000) / 1_000  # or all jobs of a model that was away would come back at once
        await self._unless_ended(record.id, asyncio.sleep(wait * jitter))

    async def _renew_claims(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._claims:
                with suppress(ProblemError):
                    for lost in await self._store.renew(list(self._claims)):
                        if (run := self._claims.get(lost)) is not None:
                            run.cancel()

    async def _reap(self) -> None:
        """End jobs whose deadline has passed, whichever replica they were queued or running on."""
        while True:
            with suppress(ProblemError):
                for job in await self._store.overdue(time.time()):
                    await self._journal.expire(job)
            await asyncio.sleep(REAP_SECONDS)
