"""Works on queued jobs: claims them, has a backend run them, tries again, and ends those whose time is over."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from contract import ProblemError, StatusEvent, problems
from web.jobs.background_loops import IDLE_SECONDS, RETRY_SECONDS, BackgroundLoop, BackgroundLoops
from web.jobs.store import ClaimLost
from web.jobs.telemetry.attempt import told
from web.metrics import JOB_RUNS, TAKEOVERS
from wire.concurrency.first_of_two import finishes_first

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

MOST_ATTEMPTS = 8
"""Of one job, over about a minute and a half where none of them takes long: a predictor may be started again in it."""

UNCOUNTED = (problems.LOADING, problems.OVERLOADED)
"""What an attempt may end with that says nothing of the job: the model is waking, or others have come first."""

FIRST_RETRY_SECONDS, MOST_RETRY_SECONDS = 1.0, 30.0
"""Before the second attempt, and at most before any other. It doubles with each failure; a predictor may ask for
more."""

RELEASE_SECONDS = 1.0
"""Longest that closing waits until jobs are released: a store that is silent leaves them to their leases."""

MOST_WAITING = 256
"""Most jobs of a model that wait here for another attempt. With so many no new ones are claimed."""


class JobWorker:
    """Runs up to `max_job_runs` jobs of each model at a time, and one more of a caller that has none here. A job that
    waits for another attempt is none of them."""

    def __init__(
        self, settings: Settings, store: JobStore, journal: JobJournal, backend: Backend, background: BackgroundLoops
    ) -> None:
        # An inbox leaves jobs to web: no request would keep it running meanwhile. Without a sink each would only fail.
        self._models = [] if settings.routes == "inbox" or settings.sink_missing else list(settings.models)
        self._store = store
        self._journal = journal
        self._backend = backend
        self._background = background
        self._places = {model: asyncio.Semaphore(settings.max_job_runs) for model in settings.models}
        self._spare_places = {model: asyncio.Semaphore(1) for model in settings.models}
        self._full = {model: asyncio.Event() for model in settings.models}
        self._runs: dict[Claim, asyncio.Task[None]] = {}
        self._waiting: set[Claim] = set()
        self._draining = False
        self._claiming: list[BackgroundLoop] = []
        self._others: list[BackgroundLoop] = []

    def open(self) -> None:
        start = self._background.start
        self._claiming = [
            *(start(f"the claiming of jobs for {name}", partial(self._claim, name)) for name in self._models),
            *(start(f"the spare place for {name}", partial(self._claim_spare, name)) for name in self._models),
        ]
        self._others = [
            start("the renewal of claims", self._renew_claims),
            start("the search for late jobs", self._reap),
        ]

    def drain(self) -> None:
        """Claim no more jobs, and leave those that wait for another attempt to other replicas, if there are any."""
        self._draining = True
        if self._store.shared:
            for claim in self._waiting:
                self._runs[claim].cancel()

    async def close(self, seconds: float) -> None:
        """Drain: running jobs get so many seconds to end, and are then released to other replicas."""
        self.drain()
        await self._background.close(*self._claiming)
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=seconds)
        runs = set(self._runs.values())
        for run in runs:
            run.cancel()
        if runs:
            await asyncio.wait(runs, timeout=RELEASE_SECONDS)
        await self._background.close(*self._others)  # until now claims had to be renewed

    # Loops

    async def _claim(self, model: str) -> None:
        places = self._places[model]
        if places.locked():
            self._full[model].set()
        try:
            async with asyncio.timeout(IDLE_SECONDS), places:
                pass  # there is room for one more
        except TimeoutError:
            return
        finally:
            self._full[model].clear()
        if self._draining or sum(claim.model == model for claim in self._waiting) >= MOST_WAITING:
            await asyncio.sleep(RETRY_SECONDS)
            return
        await self._begin(await self._store.claim(model), places)

    async def _claim_spare(self, model: str) -> None:
        """Where all places are taken, one more job: of a caller that has none of them. It would wait for one of them
        to end, and then once more for a slot of the model."""
        spare = self._spare_places[model]
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._full[model].wait()
                async with spare:
                    pass
        except TimeoutError:
            return
        if self._draining:
            await asyncio.sleep(RETRY_SECONDS)
            return
        callers = {claim.caller for claim in self._runs if claim.model == model}
        await self._begin(await self._store.claim(model, but_not=callers), spare)

    async def _begin(self, claim: Claim | None, places: asyncio.Semaphore) -> None:
        """Run what was claimed, in one of the places."""
        if (
            claim is None or claim in self._runs
        ):  # its lease ran out, in an outage perhaps, but it is running here still
            return
        if self._draining:
            await self._store.release(claim)
            return
        if claim.taken_over:
            TAKEOVERS.labels(claim.model).inc()
        self._runs[claim] = asyncio.create_task(self._run(claim, places))
        JOB_RUNS.labels(claim.model).inc()
        await asyncio.sleep(0)  # now it has asked for its place

    async def _renew_claims(self) -> None:
        await asyncio.sleep(RENEW_SECONDS)
        if self._runs:
            for lost in await self._store.renew(list(self._runs)):
                if (run := self._runs.get(lost)) is not None:
                    run.cancel()

    async def _reap(self) -> None:
        """End jobs whose deadline has passed, whichever replica they were queued or running on."""
        for job in await self._store.overdue(await self._store.now()):
            await self._journal.expire(job)
        await asyncio.sleep(REAP_SECONDS)

    # One claim

    async def _run(self, claim: Claim, places: asyncio.Semaphore) -> None:
        journal = self._journal.of_claim(claim)
        try:
            if await self._try_until_done(claim, journal, places):
                await self._store.acknowledge(claim)
            else:
                await self._release(claim, journal)
        except asyncio.CancelledError:
            with suppress(ProblemError, ClaimLost):
                await self._release(claim, journal)
            raise
        except ClaimLost:  # this replica was away for longer than its lease
            log.warning("job %s is given up: it was claimed again", claim.job)
        except ProblemError as error:  # of the store: once the lease has run out the job is claimed again
            log.warning("job %s is left to its lease: %s", claim.job, error)
        except Exception:
            log.exception("job %s failed", claim.job)
            with suppress(ProblemError, ClaimLost):
                problem = ProblemError(problems.INTERNAL, "Something went wrong on the server.")
                await journal.end(claim.job, problem)
                await self._store.acknowledge(claim)
        finally:
            self._runs.pop(claim, None)
            JOB_RUNS.labels(claim.model).dec()
            self._journal.leave(claim)

    async def _release(self, claim: Claim, journal: JobJournal) -> None:
        """Let another replica run it from its beginning. That it was not run to its end here costs no attempt."""
        record = await self._store.get(claim.job)
        if record is not None and record.started is not None:
            await journal.reset(claim.job, attempts=-1)
        await self._store.release(claim)

    async def _try_until_done(self, claim: Claim, journal: JobJournal, places: asyncio.Semaphore) -> bool:
        """True once the job has ended, or the predictor has taken it and will send its end; False where another replica
        is to go on."""
        failures = 0
        while True:
            async with places:
                error = await self._attempt(claim.job, journal)
            if error is None:
                return True
            failures += 1
            record = await self._store.get(claim.job)
            if record is None or record.ended is not None:
                return True
            seconds = await self._seconds_to_wait(record, journal, error, failures)
            if seconds is None:
                return True
            if self._draining and self._store.shared:
                return False
            self._waiting.add(claim)
            try:
                await self._unless_ended(claim.job, asyncio.sleep(seconds))
            finally:
                self._waiting.discard(claim)

    async def _attempt(self, job: str, journal: JobJournal) -> ProblemError | None:
        """Run it. The transient problem where it is to be tried again."""
        record = await self._store.get(job)
        if record is None or record.ended is not None:
            return None
        if record.attempts >= MOST_ATTEMPTS:
            await journal.end(job, _too_many(record.attempts, "the last was broken off."))
            return None
        now = await journal.now()
        if record.deadline <= now:
            await journal.expire(job)
            return None
        if record.started is not None:  # by a replica that died
            await journal.reset(job)
        with told(record, journal, now) as attempt:
            try:
                done = await self._unless_ended(job, self._backend.run(record, journal))
                # It may have ended by what the run has written, before the run itself is over.
                if done or journal.ending:
                    attempt.outcome = "failed" if journal.ending == "failed" else "done"
            except ProblemError as error:
                attempt.outcome = "retried" if error.kind.transient else "failed"
                if error.kind.transient:
                    return _without_frames(error)
                await journal.end(job, error)
        return None

    async def _unless_ended(self, job: str, work: Coroutine[Any, Any, object]) -> bool:
        """Do the work, but give it up when the job ends elsewhere, as after a DELETE; whether it was done."""
        ended = asyncio.ensure_future(self._store.wait_for_end(job))
        try:
            done = await finishes_first(work, ended)
            if not done:
                ended.result()  # or the store's problem
            return done
        finally:
            ended.cancel()
            await asyncio.wait({ended})

    async def _seconds_to_wait(
        self, record: JobRecord, journal: JobJournal, error: ProblemError, failures: int
    ) -> float | None:
        """Queue the job again, and say why and for how long; or end it, where it has had its attempts or its time."""
        counted = error.kind not in UNCOUNTED
        begun = record.started is not None  # which counts already
        attempts = record.attempts + (counted and not begun)
        if counted and attempts >= MOST_ATTEMPTS:
            await journal.end(record.id, _too_many(attempts, f"the last one ended so: {error}"))
            return None
        growing = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 16), MOST_RETRY_SECONDS)
        asked = min(error.problem.retry_after or 0, MOST_RETRY_SECONDS)
        wait = max(asked, growing) if counted else asked or growing
        if wait >= record.deadline - await journal.now():
            problem = ProblemError(problems.TOO_LATE, f"The time was over; the last attempt ended so: {error}")
            await journal.end(record.id, problem)
            return None
        log.info("job %s waits %.1f s: %s", record.id, wait, error.kind.slug)
        await journal.reset(
            record.id,
            StatusEvent(state="queued", problem=error.kind.uri, reason=str(error)),
            attempts=counted - begun,
        )
        return wait * random.uniform(0.5, 1.5)  # or all jobs of a model that was away would come back at once


def _without_frames(error: ProblemError) -> ProblemError:
    """The frames hold what had come of the answer, a picture perhaps, and a job may wait long for its next attempt."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _too_many(attempts: int, how: str) -> ProblemError:
    return ProblemError(problems.UNDELIVERED, f"It was tried {attempts} times, and {how}")
