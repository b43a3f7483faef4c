"""Jobs over HTTP: made by `POST /generate`, then watched, fetched and cancelled at `/generations/{id}`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request
from starlette.responses import Response

from contract import ENDS, PictureResult, ProblemError, TextResult, problems
from contract.events import LiveEvent
from contract.problems import raised
from contract.stored import request_of
from web.api.generation_call import GenerationCall
from web.api.job_stream import job_events, job_frames
from web.api.picture_addresses import PictureAddresses
from web.callers.caller import caller_of
from web.http.accept import IMAGES, JSON, MULTIPART, SSE, heaviest
from web.http.entity_tag import unless_known
from web.http.last_event_id import last_event_id
from web.http.parted_response import HeldResponse, PartedResponse, json_parts, without_files
from web.http.public_address import address_base
from web.http.responses import whole
from web.jobs.record import JobRecord
from web.jobs.service import JobService
from web.jobs.store import answers_within
from wire.problems import problem_response
from wire.sse import EventStream

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.readiness.model_readiness import Readiness
    from web.settings import Settings

_UNCACHED = {"Cache-Control": "no-store"}


class JobEndpoints:
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        jobs: JobService,
        readiness: Mapping[str, Readiness],
        addresses: PictureAddresses,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._addresses = addresses
        self._readiness = readiness  # a shared store has other replicas' models, too

    # POST /generate

    @asynccontextmanager
    async def response(self, call: GenerationCall) -> AsyncGenerator[Response]:
        """The answer to a call that becomes a job: its events, its result, or a 202 with the job once the client does
        not want to wait any longer. Leaving the context early cancels a job that nobody else can find."""
        after = last_event_id(call.headers)
        record = await self._submit(call)
        headers = {"Location": f"{self._settings.root_path}/generations/{record.id}"}
        if call.preferences.applied:
            headers["Preference-Applied"] = call.preferences.applied
        if call.form == SSE:
            try:
                resumable = call.preferences.outlives_connection
                yield await self._events(record, after, call.base, headers, resumable=resumable)
            finally:
                await self._abandon(call, record)
            return
        record = await self._wait(call, record)
        if record.state not in ENDS:
            yield await self._document(record, 202, call.base, headers)
            return
        async with self._jobs.results.held(record):
            result = await self._jobs.results.result(record)
            if call.form == JSON and call.base is not None and isinstance(result, PictureResult):
                document = await self._addresses.result(record, result, call.base)
                response = Response(document, media_type=JSON, headers=_UNCACHED)
            else:
                response = whole(result, call.form)
            response.headers.update(headers)
            yield response

    @asynccontextmanager
    async def live_events(self, call: GenerationCall) -> AsyncGenerator[AsyncGenerator[LiveEvent]]:
        """The events of a call, by way of a job. Leaving the context cancels a job that nobody else can find."""
        record = await self._submit(call)
        try:
            async with aclosing(job_events(self._jobs, self._readiness.get(record.model), record)) as events:
                yield events
        finally:
            await self._abandon(call, record)

    async def is_replay(self, call: GenerationCall) -> bool:
        """Whether the call's idempotency key has made its job already."""
        key = call.preferences.idempotency_key
        if key is None:
            return False
        async with answers_within(call.seconds):
            return await self._jobs.replays(call.caller, key)

    async def result(self, call: GenerationCall) -> TextResult | PictureResult:
        """The result of a call, by way of a job; the problem when it has none."""
        record = await self._wait(call, await self._submit(call))
        async with self._jobs.results.held(record):
            return await self._jobs.results.result(record)

    async def addresses(self, call: GenerationCall, base: str) -> tuple[PictureResult, list[str]]:
        """The result of a call for pictures, by way of a job that is kept, and their addresses."""
        record = await self._wait(call, await self._submit(call))
        if record.state not in ENDS:
            raise ProblemError(problems.TOO_LATE, "The time that the request was given is over.")
        async with self._jobs.results.held(record):
            result = await self._jobs.results.result(record)
            assert isinstance(result, PictureResult)
            made = [await self._addresses.address(record, number, base) for number in range(len(result.images))]
            return result, [url for url, _ in made]

    async def _submit(self, call: GenerationCall) -> JobRecord:
        async with answers_within(call.seconds):
            record = await self._jobs.submit(call.job)
        if call.form in IMAGES and call.form not in _files(record):  # the first call with this key had another form
            raise _not_acceptable(record)
        return record

    async def _wait(self, call: GenerationCall, record: JobRecord) -> JobRecord:
        """The job when it has ended, or when the client does not want to wait any longer."""
        if call.preferences.wait_seconds == 0:
            return record
        try:
            # A job that an earlier request with this key has made may take longer than a connection lasts.
            seconds = call.preferences.wait_seconds or self._settings.generate_seconds
            return await self._jobs.wait(record.id, seconds, found_again=call.preferences.outlives_connection)
        except BaseException:
            await self._abandon(call, record)
            raise

    async def _abandon(self, call: GenerationCall, record: JobRecord) -> None:
        """Cancel the job if nobody can find it again."""
        if not call.preferences.outlives_connection:
            with anyio.CancelScope(shield=True):
                await self._jobs.cancel(record.id)

    # /generations/{id}

    async def serve(self, http_request: Request) -> Response:
        record = await self._jobs.find(http_request.path_params["id"], caller_of(http_request.scope))
        if http_request.method == "DELETE":
            if record.state not in ENDS:
                return await self._document(await self._jobs.cancel(record.id), 200, None)
            await self._jobs.delete(record)
            return Response(status_code=204)
        return await self._get(http_request, record)

    async def _get(self, http_request: Request, record: JobRecord) -> Response:
        """In the form that is accepted most: the job as JSON, its events from the first or the Last-Event-ID, or the
        result itself, which is a 202 with the job while there is none."""
        after = last_event_id(http_request.headers)
        base = address_base(self._settings, http_request)
        form = heaviest(http_request.headers, _forms(record))
        if form is None:
            raise _not_acceptable(record)
        if form == SSE:
            return await self._events(record, after, base)
        if record.state not in ENDS:
            return await self._document(record, 200 if form == JSON else 202, base)
        if form == JSON:
            return HeldResponse(self._jobs.results.held(record), partial(self._document, record, 200, base))
        return HeldResponse(self._jobs.results.held(record), partial(self._file, http_request, record, form))

    async def _file(self, http_request: Request, record: JobRecord, form: str) -> Response:
        if (problem := record.problem) is not None:  # as all others get it, without an instance
            return problem_response(raised(problem), problem.model_dump(exclude_none=True))
        response = whole(await self._jobs.results.result(record), form)
        return unless_known(http_request.headers, response) if "ETag" in response.headers else response

    async def _document(
        self, record: JobRecord, status: int, base: str | None, headers: dict[str, str] | None = None
    ) -> Response:
        """The job; with the addresses of its pictures, which begin with `base`, in their place if there is one."""
        headers = {**_UNCACHED, **(headers or {})}
        job = await self._jobs.document(record)
        readiness = self._readiness.get(record.model)
        if record.state == "queued" and readiness is not None and readiness.waking is not None:
            left, own = readiness.seconds_left, job.expected_seconds
            expected = None if left is None or own is None else round(left + own, 1)
            job = job.model_copy(update={"waking": readiness.waking, "expected_seconds": expected})
            headers["Retry-After"] = str(readiness.retry_after)
        elif record.state not in ENDS:
            headers["Retry-After"] = str(await self._jobs.retry_after(record))
        document = job.model_dump_json(exclude={"result"}, exclude_none=True)
        files: list[str] = []
        if job.result is not None:  # a result says null where something is not known
            result = job.result
            if isinstance(result, PictureResult) and base is not None:
                answer = await self._addresses.result(record, result, base)
            elif isinstance(result, PictureResult):
                files = [picture.data for picture in result.images]
                answer = without_files(result).model_dump_json()
            else:
                answer = result.model_dump_json()
            document = f'{document[:-1]},"result":{answer}}}'
        parts, size = json_parts(document, files)
        return PartedResponse(parts, size, status, headers={**headers, "Content-Type": JSON})

    async def _events(
        self,
        record: JobRecord,
        after: str | None,
        base: str | None,
        headers: dict[str, str] | None = None,
        *,
        resumable: bool = True,
    ) -> Response:
        if after is not None and record.state in ENDS:
            left = [entry async for entry in self._jobs.watch(record.id, after)]
            if not left:  # an EventSource that has seen the end would connect again and again otherwise
                return Response(status_code=204)
        outcome = None if base is None else partial(self._addresses.outcome, base=base)
        readiness = self._readiness.get(record.model)
        frames = job_frames(self._jobs, readiness, record, after, resumable=resumable, outcome=outcome)
        stream = EventStream(frames, heartbeat_seconds=self._settings.heartbeat_seconds, resumable=resumable)
        stream.headers.update(headers or {})
        return stream


def _not_acceptable(record: JobRecord) -> ProblemError:
    return ProblemError(problems.NOT_ACCEPTABLE, f"This generation is served as {', '.join(_forms(record))}.")


def _forms(record: JobRecord) -> list[str]:
    return [JSON, SSE, *_files(record)]


def _files(record: JobRecord) -> list[str]:
    """The forms in which the result itself can be had: its pictures are in one format."""
    if record.kind == "text":
        return []
    request = request_of(record.request)
    single = [form for form, name in IMAGES.items() if name == (request.format or "png") and request.n in (None, 1)]
    return [*single, MULTIPART]
