"""Jobs: generations that outlive the connection they were requested on. Submit, find, watch and cancel them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from contract import GenerationRequest, Job, JobList, ProblemError, StatusEvent, Webhook, invalid_field, problems
from contract.cloudevents import EVENT_BYTES
from contract.stored import stored_request
from web.callers.caller import DEFAULT_CALLER
from web.jobs.backend import sink_missing
from web.jobs.background_loops import BackgroundLoops
from web.jobs.cost import cost
from web.jobs.journal import JobJournal
from web.jobs.record import BEGINNING, JobRecord, LogEntry, QueuePlace
from web.jobs.results import Results
from web.jobs.worker import JobWorker
from web.metrics import JOBS_ADDED
from wire.concurrency.first_of_two import finishes_first
from wire.drain import LAST_SECONDS
from wire.telemetry.facts import current_facts

if TYPE_CHECKING:  # see web.rest.upstream
    from web.jobs.backend import Backend
    from web.jobs.store import JobStore
    from web.settings import Settings

ANSWER_SECONDS = 0.5
"""Before the end of a drain: for the answer to whoever still waits for a job."""


@dataclass(frozen=True)
class NewJob:
    """What is to become a job."""

    sent: BaseModel
    """The body as it came, which an idempotency key is bound to."""
    request: GenerationRequest
    """What is generated."""
    model: str
    seconds: float
    """Within which it must end."""
    headers: dict[str, str]
    """Passed on to the predictor."""
    key: str | None = None
    """Idempotency key."""
    caller: str = DEFAULT_CALLER
    own_limit: bool = False
    """See JobRecord."""
    keep_seconds: float | None = None
    """How long it is kept after its end; as all jobs are where that is None."""
    response: str | None = None
    hidden: bool = False
    """See JobRecord, both."""


class JobService:
    """The jobs of this replica and, where the store is shared, of all others. `check_webhook` raises what is wrong with
    the address of a webhook and the caller that asks for it; without it, none is taken."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        backend: Backend,
        background: BackgroundLoops | None = None,
        results: Results | None = None,
        check_webhook: Callable[[str, str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._backend = backend
        self._check_webhook = check_webhook
        self.journal = JobJournal(store, results)
        self.results = self.journal.results
        self._leaving = asyncio.Event()
        self._worker = JobWorker(settings, store, self.journal, backend, background or BackgroundLoops())

    async def open(self) -> None:
        """Begin to work on queued jobs. An UNAVAILABLE problem when the store cannot be reached."""
        await self._store.open()
        self._worker.open()

    def drain(self) -> None:
        """Begin no more jobs here. Whoever can find their job again waits for it until shortly before the end."""
        self._worker.drain()
        if self._store.shared:
            seconds = max(self._settings.grace_seconds - LAST_SECONDS - ANSWER_SECONDS, 0)
            asyncio.get_running_loop().call_later(seconds, self._leaving.set)

    async def close(self, seconds: float) -> None:
        """Running jobs get so many seconds to end; what is open then is left to the other replicas."""
        await self._worker.close(seconds)
        await self._store.close()

    async def submit(self, new: NewJob) -> JobRecord:
        """A new job, or the one that its idempotency key has made; a new one again where that has failed for a reason
        that may have passed.

        Raises INVALID_FIELD for a webhook that is not allowed, KEY_REUSED when another body came with the key before,
        OVERLOADED when `max_jobs` are open, UNAVAILABLE where nobody has said where they are to be sent.
        """
        model, key, url = new.model, new.key, new.request.webhook
        if url is not None:
            if self._check_webhook is None:
                raise invalid_field("webhook", "is not taken here")
            self._check_webhook(url, new.caller)
        body = new.sent.model_dump_json(exclude={"stream"}, exclude_none=True)
        now = await self._store.now()
        # A further attempt and a redelivered event must have the same result, and a predictor that serves several
        # models must know the chosen one.
        seed = secrets.randbits(32) if new.request.seed is None else new.request.seed
        request = new.request.model_copy(update={"seed": seed, "model": model})
        record = JobRecord(
            id=uuid.uuid4().hex if key is None else await self._keyed_id(new.caller, key),
            model=model,
            kind=self._settings.models[model].kind,
            request=stored_request(request),
            digest=hashlib.sha256(f"{model} {body}".encode()).hexdigest(),
            created=now,
            deadline=now + new.seconds,
            own_limit=new.own_limit,
            headers=new.headers,
            caller=new.caller,
            cost=cost(request, self._settings.models[model].kind),
            webhook=None if url is None else Webhook(url=url),
            keep_seconds=new.keep_seconds,
            response=new.response,
            hidden=new.hidden,
        )
        if self._settings.dispatch == "events" and new.request.image and len(record.request) > EVENT_BYTES:
            raise invalid_field(
                "image", f"requests go as events here, which have at most {EVENT_BYTES} bytes with all their pictures"
            )
        if self._settings.sink_missing and await self._is_new(record):
            raise sink_missing()
        if await self._store.open_jobs() >= self._settings.max_jobs and await self._is_new(record):
            raise ProblemError(
                problems.OVERLOADED,
                f"{self._settings.max_jobs} generations are queued or running; no more are taken.",
                retry_after=self.journal.service_time(model).seconds,
            )
        stored = await self._store.add(record)
        if stored.created == record.created:  # or it is one that was there before
            JOBS_ADDED.labels(model).inc()
        if stored.digest != record.digest:
            raise ProblemError(
                problems.KEY_REUSED, "The first request with this Idempotency-Key asked for something else."
            )
        if (facts := current_facts()) is not None:
            facts.job_id = stored.id
        return stored

    async def _is_new(self, record: JobRecord) -> bool:
        existing = await self._store.get(record.id)
        return existing is None or record.replaces(existing)

    async def _keyed_id(self, caller: str, key: str) -> str:
        """The id of the job that this caller's idempotency key makes. Nobody without the secret can tell it from the
        key. Where everybody is one caller and no secret is given, ids are those of commit 73ec94b, whose replicas may
        share the store: a key that both are asked with makes one job."""
        if self._settings.callers_secret is None and self._settings.callers in (None, "off"):
            return hashlib.sha256(f"shangcai:{key}".encode()).hexdigest()[:32]
        # No key holds a line feed.
        secret = (await self.secret()).encode()
        return hmac.new(secret, f"{caller}\n{key}".encode(), hashlib.sha256).hexdigest()[:32]

    async def secret(self) -> str:
        """What all replicas know and nobody else: CALLERS_SECRET, or else what was drawn where the jobs are."""
        given = self._settings.callers_secret
        return await self._store.secret() if given is None else given.get_secret_value()

    async def now(self) -> float:
        """Seconds since 1970, on the clock that the times of jobs are of."""
        return await self._store.now()

    async def replays(self, caller: str, key: str) -> bool:
        """Whether a request with this idempotency key gets a job that there is already."""
        existing = await self._store.get(await self._keyed_id(caller, key))
        return existing is not None and not existing.may_be_retried

    async def find(self, job: str, caller: str | None = None) -> JobRecord:
        """A NOT_FOUND problem when it is unknown, or forgotten, or hidden or another caller's where one is given."""
        record = await self._store.get(job)
        if record is None or (caller is not None and (caller != record.caller or record.hidden)):
            keep = self._settings.job_keep_seconds
            detail = f"There is no generation of this id; one is forgotten {keep:g} s after its end."
            raise ProblemError(problems.NOT_FOUND, detail)
        if record.ended is None and record.deadline <= await self._store.now():
            await self.journal.expire(record.id)
            return await self.find(job)
        return record

    async def document(self, record: JobRecord) -> Job:
        """The job as clients see it."""
        place = await self._store.place(record)
        return record.summary.model_copy(
            update={
                "position": None if place is None else place.position,
                "expected_seconds": None if place is None else self._expected_seconds(record.model, place),
                "result": await self.results.result(record) if record.state == "completed" else None,
                "error": record.problem,
                "webhook": record.webhook,
            }
        )

    async def jobs_of(self, caller: str, limit: int, before: str | None) -> JobList:
        """A page of the caller's jobs; `before` is the cursor at which the page before it ended."""
        records = await self._store.jobs_of(caller, limit + 1, before)
        page = records[:limit]
        return JobList(
            generations=[record.summary for record in page],
            next=page[-1].cursor if len(records) > limit else None,
        )

    async def delete(self, record: JobRecord) -> None:
        """Forget a job that has ended, and its result."""
        await self._store.delete(record)
        await self.results.delete(record.artifact)

    async def waiting(self, record: JobRecord, silent_seconds: float, *, requeued: bool = False) -> StatusEvent:
        """How a job waits, by what is known of it: `pending` where it was passed on to its model server, or to a
        Broker, so many seconds ago and nothing is heard of it yet.

        Of a job that another replica has claimed it is not known whether it waits for another attempt, or its model
        server has said that it is queued: both are in its log, and `requeued` says that they were.
        """
        silent = self.journal.silent_seconds(record.id)
        if silent is not None and silent >= silent_seconds:
            return StatusEvent(state="pending")
        place = await self._store.place(record)
        if silent is None and record.state == "queued" and not requeued and (place is None or place.is_claimed):
            return StatusEvent(state="pending")
        if place is None:
            return StatusEvent(state="queued")
        expected = self._expected_seconds(record.model, place)
        return StatusEvent(state="queued", position=place.position, expected_seconds=expected)

    async def placed(self, record: JobRecord, status: StatusEvent) -> StatusEvent:
        """A status of its model, with the place of the job."""
        place = await self._store.place(record)
        return status if place is None else status.model_copy(update={"position": place.position})

    async def retry_after(self, record: JobRecord) -> int:
        """Seconds until it is worth asking for the job again: those before it, and its own service time."""
        place = await self._store.place(record)
        seconds = self.journal.service_time(record.model).seconds
        return max(1, math.ceil(seconds if place is None else self._until_end(record.model, place)))

    def _expected_seconds(self, model: str, place: QueuePlace) -> float | None:
        """As `_until_end`; None before the first has ended, and where that rounds to nothing."""
        known = self.journal.service_time(model).known
        return round(self._until_end(model, place), 1) or None if known else None

    def _until_end(self, model: str, place: QueuePlace) -> float:
        """Seconds until a queued job has probably ended. Each replica with claims runs as many as this one; before the
        first has ended, all that are claimed are taken to run."""
        service_time = self.journal.service_time(model)
        replicas = max(1.0, place.claimed / self._settings.max_job_runs)
        parallel = service_time.parallel * replicas if service_time.known else max(1, place.claimed)
        return service_time.until_end(place.position, parallel)

    def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        """The entries of its log after this one, until the job has ended."""
        return self._store.watch(job, after)

    async def wait(self, job: str, seconds: float | None, *, found_again: bool = False) -> JobRecord:
        """The job once it has ended, or as it is after so many seconds; with `found_again` also as it is shortly before
        this replica ends, if others go on with it."""
        leaving = asyncio.ensure_future(self._leaving.wait() if found_again else asyncio.Event().wait())
        try:
            await finishes_first(self._store.wait_for_end(job), leaving, seconds)
        finally:
            leaving.cancel()
        return await self.find(job)

    async def cancel(self, job: str) -> JobRecord:
        """End it, unless it has ended. The predictor stops at the next token or step."""
        problem = ProblemError(problems.CANCELLED, "The generation was cancelled before its end.")
        if await self.journal.end(job, problem):
            await self._backend.cancel(await self.find(job))
        return await self.find(job)
