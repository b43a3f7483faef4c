"""`/generations/{id}`: a job, made by `POST /generate`, then watched, fetched and cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ENDS, GenerationRequest, ProblemError, StatusEvent, problems
from web.http.accept import IMAGES, JSON, MULTIPART, SSE, heaviest
from web.http.preferences import RequestPreferences, last_event_id
from web.http.request_context import RequestContext
from web.http.responses import whole
from web.jobs.record import BEGINNING, JobRecord, LogEntry, last_event, result_of
from web.jobs.service import JobService
from web.readiness.waiting_statuses import WaitingStatuses
from wire.deadline import request_seconds
from wire.sse import EventStream, frame

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.readiness.model_readiness import Readiness
    from web.settings import Settings

_UNCACHED = {"Cache-Control": "no-store"}


class JobEndpoints:
    """The endpoints of the jobs."""

    def __init__(self, settings: Settings, jobs: JobService, readiness: Mapping[str, Readiness]) -> None:
        self._settings = settings
        self._jobs = jobs
        self._readiness = readiness  # a shared store has other replicas' models, too

    # POST /generate

    @asynccontextmanager
    async def made(
        self,
        request: Request,
        sent: GenerationRequest,
        order: GenerationRequest,
        model: str,
        form: str,
        wish: RequestPreferences,
    ) -> AsyncGenerator[Response]:
        """The answer to an order that becomes a job: its result, its events, or a 202 when the client does not want
        to wait any longer. `sent` is the order as it came. Leaving before the end cancels a job without a wish."""
        limit = self._settings.job_seconds if wish.preference.respond_async else self._settings.generate_seconds
        seconds = request_seconds(request.headers, limit)
        identity = RequestContext.of(request.scope)
        after = last_event_id(request.headers)
        record = await self._jobs.submit(sent, order, model, seconds, identity.headers, key=wish.key)
        if form in IMAGES and form not in _files(record):  # with the same key it was asked for in another form
            raise _not_acceptable(record)
        headers = {"Location": f"/generations/{record.id}"}
        if wish.preference.given:
            headers["Preference-Applied"] = wish.preference.applied
        stays = wish.outlives
        try:
            if form == SSE:
                yield await self._events(record, after, headers)
            else:
                patience = wish.preference.patience if wish.preference.given else None
                if patience != 0:
                    record = await self._jobs.wait(record.id, patience)
                if record.state in ENDS:
                    stays = True
                    response = whole(result_of(record), form)
                    response.headers.update(headers)
                else:
                    response = await self._document(record, 202, headers)
                yield response
        finally:
            if not stays:
                with anyio.CancelScope(shield=True):
                    await self._jobs.cancel(record.id)

    # /generations/{id}

    async def serve(self, request: Request) -> Response:
        record = await self._jobs.find(request.path_params["id"])
        if request.method == "DELETE":  # asked again it answers the same
            return await self._document(await self._jobs.cancel(record.id), 200)
        return await self._get(request, record)

    async def _get(self, request: Request, record: JobRecord) -> Response:
        """In the form that is accepted most: as JSON, as events from the first or the Last-Event-ID, or the result
        itself, which is a 202 with the JSON before there is one."""
        form = heaviest(request.headers, _forms(record))
        if form is None:
            raise _not_acceptable(record)
        if form == SSE:
            return await self._events(record, last_event_id(request.headers))
        if form == JSON:
            return await self._document(record, 200)
        return whole(result_of(record), form) if record.state in ENDS else await self._document(record, 202)

    async def _document(self, record: JobRecord, status: int, headers: dict[str, str] | None = None) -> Response:
        headers = {**_UNCACHED, **(headers or {})}
        job = await self._jobs.document(record)
        readiness = self._readiness.get(record.model)
        if record.state == "queued" and readiness is not None and readiness.waking is not None:
            job = job.model_copy(update={"waking": readiness.waking})
            headers["Retry-After"] = str(readiness.retry_after)
        elif record.state not in ENDS:
            headers["Retry-After"] = str(await self._jobs.retry_after(record))
        document = job.model_dump(mode="json", exclude={"result"}, exclude_none=True)
        if job.result is not None:  # which says null where something is not known
            document["result"] = job.result.model_dump(mode="json")
        return JSONResponse(document, status, headers)

    async def _events(self, record: JobRecord, after: str | None, headers: dict[str, str] | None = None) -> Response:
        if after is not None and record.state in ENDS:
            left = [entry async for entry in self._jobs.watch(record.id, after)]
            if not left:  # an EventSource that has seen the end would come again and again otherwise
                return Response(status_code=204)
        stream = EventStream(self._frames(record, after), heartbeat_seconds=self._settings.heartbeat_seconds)
        stream.headers.update(headers or {})
        return stream

    async def _frames(self, record: JobRecord, after: str | None) -> AsyncGenerator[bytes]:
        """Ends with a result or an error, whatever happens. What a job waits for is told without an id: it is not part
        of what can be replayed."""
        ended = False
        try:
            if after is None:
                yield _status_frame(StatusEvent(state="queued", position=await self._jobs.position(record) or None))
            async with aclosing(self._told(record, after or BEGINNING)) as told:
                async for entry in told:
                    if isinstance(entry, StatusEvent):
                        yield _status_frame(entry)
                    else:
                        ended = entry.last
                        yield frame(entry.data, entry.event, entry.id)
            if not ended:  # whoever asks has seen all of it, or nothing is left but the end
                record = await self._jobs.find(record.id)
                assert record.outcome is not None
                assert record.end is not None
                yield frame(record.outcome, last_event(record.end))
        except ProblemError as error:
            yield frame(error.problem.model_dump_json(exclude_none=True), "error")

    async def _told(self, record: JobRecord, after: str) -> AsyncGenerator[LogEntry | StatusEvent]:
        """What is in the log of a job, and while it is queued what its model does meanwhile."""
        readiness = self._readiness.get(record.model)
        entries = self._jobs.watch(record.id, after)
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


def _not_acceptable(record: JobRecord) -> ProblemError:
    return ProblemError(problems.NOT_ACCEPTABLE, f"This generation is served as {', '.join(_forms(record))}.")


def _forms(record: JobRecord) -> list[str]:
    return [JSON, SSE, *_files(record)]


def _files(record: JobRecord) -> list[str]:
    """The forms in which the result itself can be had: its pictures are in one format."""
    if record.kind == "text":
        return []
    order = GenerationRequest.model_validate_json(record.request)
    single = [form for form, name in IMAGES.items() if name == (order.format or "png") and order.n in (None, 1)]
    return [*single, MULTIPART]
