"""The events of a job as server-sent events: its log, and while it is queued what it waits for."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from contract import ProblemError, StatusEvent
from web.jobs.record import BEGINNING, JobRecord, LogEntry, last_event
from web.jobs.service import JobService
from web.readiness.waiting_statuses import WaitingStatuses
from wire.sse import frame

if TYPE_CHECKING:  # see web.rest.upstream
    from web.readiness.model_readiness import Readiness

log = logging.getLogger(__name__)


async def job_frames(
    jobs: JobService, readiness: Readiness | None, record: JobRecord, after: str | None, *, resumable: bool
) -> AsyncGenerator[bytes]:
    """Frames from the beginning or `after` an entry. The last is the result or the error that the job has ended with.

    Where the store is lost meanwhile, the frames just stop: the job goes on, and so does a client that comes back with
    the id of the last entry. To one that cannot come back, because leaving cancels the job, the loss is told as the
    error: `resumable` is false.

    Statuses of waiting have no id: they are no part of the log and cannot be replayed. `readiness` is the model's,
    where it is served here.
    """
    ended = False
    try:
        if after is None:
            yield _status_frame(StatusEvent(state="queued", position=await jobs.position(record) or None))
        async with aclosing(_entries(jobs, readiness, record, after or BEGINNING)) as entries:
            async for entry in entries:
                if isinstance(entry, StatusEvent):
                    yield _status_frame(entry)
                else:
                    ended = entry.last
                    yield frame(entry.data, entry.event, entry.id)
        if not ended:  # the client has seen the whole log already, or only the outcome is left of it
            record = await jobs.find(record.id)
            assert record.outcome is not None
            assert record.end is not None
            yield frame(record.outcome, last_event(record.end))
    except ProblemError as error:
        log.info("a stream of job %s ends early: %s", record.id, error)
        if not resumable:
            yield frame(error.problem.model_dump_json(exclude_none=True), "error")


async def _entries(
    jobs: JobService, readiness: Readiness | None, record: JobRecord, after: str
) -> AsyncGenerator[LogEntry | StatusEvent]:
    """The entries of the log, and while the job is queued the statuses of its model."""
    entries = jobs.watch(record.id, after)
    queued = record.state == "queued"
    while True:
        if queued and readiness is not None:
            upcoming = asyncio.ensure_future(anext(entries, None))
            async with aclosing(WaitingStatuses(readiness, "queued").until(upcoming)) as statuses:
                async for status in statuses:
                    yield status
            entry = upcoming.result()
        else:
            entry = await anext(entries, None)
        if entry is None:
            return
        queued = entry.event == StatusEvent.event and json.loads(entry.data)["state"] == "queued"
        yield entry


def _status_frame(status: StatusEvent) -> bytes:
    return frame(status.model_dump_json(), StatusEvent.event)
