"""The events of a job as server-sent events: its log, and while it is queued what it waits for."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from contract import PictureResultEvent, ProblemError, ResultEvent, StatusEvent, TextResult
from contract.events import ON_THE_WAY, LiveEvent
from web.jobs.record import BEGINNING, JobRecord, LogEntry, last_event
from web.jobs.service import JobService
from web.jobs.store import PLACE_SECONDS
from web.metrics import WATCHERS
from web.readiness.model_readiness import FIRST_STATUS_SECONDS
from web.readiness.state import SILENCE_SECONDS
from web.readiness.waiting_statuses import WakeUpStatuses
from wire.problems import told_problem
from wire.sse import frame

if TYPE_CHECKING:  # see web.rest.upstream
    from web.readiness.model_readiness import Readiness

log = logging.getLogger(__name__)


async def job_frames(
    jobs: JobService,
    readiness: Readiness | None,
    record: JobRecord,
    after: str | None,
    *,
    resumable: bool,
    outcome: Callable[[JobRecord], Awaitable[str]] | None = None,
) -> AsyncGenerator[bytes]:
    """Frames from the beginning or `after` an entry. The last is the result or the error that the job has ended with.

    Where the store is lost meanwhile, the frames just stop: the job goes on, and so does a client that comes back with
    the id of the last entry. To one that cannot come back, because leaving cancels the job, the loss is told as the
    error: `resumable` is false.

    Statuses of waiting have no id: they are no part of the log and cannot be replayed. `readiness` is the model's,
    where it is served here. `outcome` makes the JSON of the last one, where that is not to be as it is stored.
    """
    document = outcome or jobs.results.document
    ended = False
    try:
        told = await jobs.waiting(record, FIRST_STATUS_SECONDS) if after is None else None
        if told is not None:
            yield _status_frame(told)
        async with aclosing(_entries(jobs, readiness, record, after or BEGINNING, told)) as entries:
            async for entry in entries:
                if isinstance(entry, StatusEvent):
                    yield _status_frame(entry)
                else:
                    ended = entry.last
                    if ended:
                        record = await jobs.find(record.id)
                        async with jobs.results.held(record):
                            stored = "" if outcome else entry.data
                            yield frame(stored or await document(record), entry.event, entry.id)
                    else:
                        yield frame(entry.data, entry.event, entry.id)
        if not ended:  # the client has seen the whole log already, or only the outcome is left of it
            record = await jobs.find(record.id)
            assert record.end is not None
            async with jobs.results.held(record):
                yield frame(await document(record), last_event(record.end))
    except ProblemError as error:
        log.info("a stream of job %s ends early: %s", record.id, error)
        if not resumable:
            yield frame(told_problem(error).model_dump_json(exclude_none=True), "error")


async def job_events(jobs: JobService, readiness: Readiness | None, record: JobRecord) -> AsyncGenerator[LiveEvent]:
    """The same as events, from the beginning. Raises the problem that the job has ended with."""
    told = await jobs.waiting(record, FIRST_STATUS_SECONDS)
    if told is not None:
        yield told
    async with aclosing(_entries(jobs, readiness, record, BEGINNING, told)) as entries:
        async for entry in entries:
            if isinstance(entry, StatusEvent):
                yield entry
            elif entry.event in ON_THE_WAY:
                yield ON_THE_WAY[entry.event].of_any_version(entry.data)
    record = await jobs.find(record.id)
    async with jobs.results.held(record):
        result = await jobs.results.result(record)
        kind = ResultEvent if isinstance(result, TextResult) else PictureResultEvent
        yield kind.model_construct(**dict(result))


async def _entries(
    jobs: JobService, readiness: Readiness | None, record: JobRecord, after: str, told: StatusEvent | None
) -> AsyncGenerator[LogEntry | StatusEvent]:
    """The entries of the log, and while the job is queued the statuses of its model and of its place, of which the
    client was `told`."""
    with WATCHERS.track_inprogress():
        entries = jobs.watch(record.id, after)
        queued, requeued = record.state == "queued", False
        while True:
            if queued:
                upcoming = asyncio.ensure_future(anext(entries, None))
                async with aclosing(_waiting(jobs, readiness, record, upcoming, told, requeued)) as statuses:
                    async for status in statuses:
                        yield status
                entry = upcoming.result()
            else:
                entry = await anext(entries, None)
            if entry is None:
                return
            queued = entry.event == StatusEvent.event and json.loads(entry.data).get("state") == "queued"
            if queued:
                told, requeued = None, True
            yield entry


async def _waiting(
    jobs: JobService,
    readiness: Readiness | None,
    record: JobRecord,
    upcoming: asyncio.Future[LogEntry | None],
    told: StatusEvent | None,
    requeued: bool,
) -> AsyncGenerator[StatusEvent]:
    """Status events until `upcoming` is done: of the model, with the place of the job; and of the job where that has
    changed, of its place every PLACE_SECONDS at most. Closing the generator cancels `upcoming`."""
    statuses = WakeUpStatuses(readiness).until(upcoming) if readiness else _none_until(upcoming)
    told_at = time.monotonic()
    async with aclosing(statuses):
        status = asyncio.ensure_future(anext(statuses, None))
        try:
            while True:
                await asyncio.wait({status}, timeout=SILENCE_SECONDS)
                if status.done():
                    if (of_model := status.result()) is None:
                        return
                    told = await jobs.placed(record, of_model)
                    yield told
                    status = asyncio.ensure_future(anext(statuses, None))
                elif readiness is None or (readiness.waking is None and readiness.reported != "asleep"):
                    new = await jobs.waiting(record, FIRST_STATUS_SECONDS, requeued=requeued)
                    due = told is None or new.state != told.state or time.monotonic() - told_at >= PLACE_SECONDS
                    if due and new != told and not upcoming.done():
                        told, told_at = new, time.monotonic()
                        yield new
        finally:
            status.cancel()
            await asyncio.wait({status})


async def _none_until(upcoming: asyncio.Future[LogEntry | None]) -> AsyncGenerator[StatusEvent]:
    try:
        await asyncio.wait({upcoming})
    finally:
        upcoming.cancel()
    return
    yield  # which makes it a generator


def _status_frame(status: StatusEvent) -> bytes:
    return frame(status.model_dump_json(), StatusEvent.event)
