"""The events of a response as server-sent events. What it waits for is said in comments."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from contract import ProblemError, ResultEvent, StatusEvent
from contract.openai.responses.documents import Document
from contract.openai.responses.stream import ResponseEvents
from web.api.job_stream import job_events
from web.http.event_frames import data_frame, status_frame
from web.responses.kept_responses import documents_of
from wire.openai_problems import error_document

if TYPE_CHECKING:  # see web.rest.upstream
    from web.jobs.record import JobRecord
    from web.jobs.service import JobService
    from web.readiness.model_readiness import Readiness

log = logging.getLogger(__name__)


async def response_frames(
    jobs: JobService, readiness: Readiness | None, record: JobRecord, after: int, *, resumable: bool
) -> AsyncGenerator[bytes]:
    """The frames of the events after this number, to the end. Who has seen numbers that are no longer known, or are not
    reached, gets the last one.

    Where the store is lost meanwhile they just stop, and a client that comes back goes on. To one that cannot, because
    `resumable` is false, the loss is told.
    """
    events = ResponseEvents(documents_of(record))
    try:
        async with aclosing(_told(events, jobs, readiness, record)) as all_told:
            async for told in all_told:
                if isinstance(told, StatusEvent):
                    yield status_frame(told)
                elif (number := told["sequence_number"]) > after or (
                    events.ended and (number < after or events.is_numbered_anew)
                ):
                    yield data_frame(told, told["type"])
    except ProblemError as error:
        log.info("a stream of response %s ends early: %s", record.id, error)
        if not resumable:
            yield data_frame(error_document(error), "error")


async def last_number(jobs: JobService, record: JobRecord) -> int | None:
    """The number of the last event of a response that has ended; None where it may have been another one."""
    events, last = ResponseEvents(documents_of(record)), -1
    async with aclosing(_told(events, jobs, None, record)) as all_told:
        async for told in all_told:
            last = last if isinstance(told, StatusEvent) else told["sequence_number"]
    return None if events.is_numbered_anew else last


async def _told(
    events: ResponseEvents, jobs: JobService, readiness: Readiness | None, record: JobRecord
) -> AsyncGenerator[Document | StatusEvent]:
    """All events of a response, and what it waits for. Raises a problem that is not the response's own."""
    for told in events.begin():
        yield told
    try:
        async with aclosing(job_events(jobs, readiness, record)) as live:
            async for event in live:
                if isinstance(event, StatusEvent) and event.state != "running":
                    yield event
                if isinstance(event, ResultEvent):
                    record = await jobs.find(record.id)
                    following = events.complete(event, record.ended or 0.0)
                else:
                    following = events.add(event)
                for told in following:
                    yield told
                if events.ended:
                    return
    except ProblemError:
        with suppress(ProblemError):
            record = await jobs.find(record.id)
        if (problem := record.problem) is None:
            raise
        for told in events.fail(problem, record.ended or 0.0, cancelled=record.end == "cancelled"):
            yield told
