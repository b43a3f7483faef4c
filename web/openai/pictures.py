"""`POST /v1/images/generations` and `/v1/images/edits`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract import (
    LiveEvent,
    PictureResult,
    PictureResultEvent,
    PreviewEvent,
    ProblemError,
    ProgressEvent,
    StatusEvent,
    TextResult,
    invalid_field,
)
from contract.openai.picture_documents import PictureDocuments
from contract.openai.pictures import EditRequest, ImagesRequest
from contract.problems import renamed
from web.api.generation_call import GenerationCall, plain_call
from web.api.generations import Generations
from web.api.jobs import JobEndpoints
from web.api.model_choice import check_kind
from web.http.accept import JSON
from web.http.event_frames import caught, chained, compact_json, data_frame, status_frame
from web.http.origin import check_origin
from web.http.parted_response import PartedResponse, json_parts, without_files
from web.http.public_address import public_base
from wire.body import json_body
from wire.body.multipart import is_multipart, multipart_body
from wire.sse import EventStream, frame

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

_UNCACHED = {"Cache-Control": "no-store", "Content-Type": JSON}


class PictureEndpoint:
    """One of the two: what its body is, and what its events are called. An ASGI endpoint, as GenerateEndpoint is."""

    def __init__(
        self, settings: Settings, generations: Generations, jobs: JobEndpoints, body: type[ImagesRequest], kind: str
    ) -> None:
        self._settings = settings
        self._generations = generations
        self._jobs = jobs
        self._body = body
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http_request = Request(scope, receive)
        body = await self._read(http_request)
        check_kind(self._settings.models, body.model, "image")
        try:
            await self._answer(body, http_request, send)
        except ProblemError as error:
            raise renamed(error, body.names) from None

    async def _answer(self, body: ImagesRequest, http_request: Request, send: Send) -> None:
        scope, receive = http_request.scope, http_request.receive
        call = plain_call(self._settings, body.request, http_request)
        async with self._generations.place(call) as fields:
            if body.stream:
                async with self._generations.live([call]) as [events]:
                    first = await anext(events)  # a problem before it has a status of its own
                    documents = PictureDocuments(body, self._kind, call.model)
                    frames = caught(_frames(first, events, documents, progress=body.progress), body.names)
                    stream = EventStream(frames, heartbeat_seconds=self._settings.heartbeat_seconds)
                    stream.headers.update(fields)
                    await stream(scope, receive, send)
                return
            response = await self._whole(body, call, scope)
            response.headers.update(fields)
            await response(scope, receive, send)

    async def _read(self, http_request: Request) -> ImagesRequest:
        limits = self._settings.limits
        if self._body is EditRequest and is_multipart(http_request):
            check_origin(http_request.headers, self._settings.cors_origins)  # forms are sent without a preflight
            body: ImagesRequest = await multipart_body(
                http_request, EditRequest, files=("image", "mask"), limits=limits
            )
        else:
            body = await json_body(http_request, self._body, limits)
        if body.stream and body.response_format == "url":
            raise invalid_field("response_format", "must be b64_json in a stream, whose events have the pictures")
        return body

    async def _whole(self, body: ImagesRequest, call: GenerationCall, scope: Scope) -> Response:
        result: TextResult | PictureResult
        urls = None
        if body.response_format == "url":
            result, urls = await self._jobs.addresses(call, public_base(self._settings, scope))
        else:
            result = await self._generations.result(call)
        assert isinstance(result, PictureResult)
        documents = PictureDocuments(body, self._kind, result.model, result.system_fingerprint)
        document = documents.whole(
            without_files(result).images,
            steps=result.steps,
            understood=result.understood,
            queue_s=result.timing.queue_s,
            urls=urls,
        )
        files = [picture.data for picture in result.images] if urls is None else []
        parts, size = json_parts(compact_json(document), files, "b64_json")
        return PartedResponse(parts, size, headers=_UNCACHED)


def generations_endpoint(settings: Settings, generations: Generations, jobs: JobEndpoints) -> PictureEndpoint:
    """`POST /v1/images/generations`."""
    return PictureEndpoint(settings, generations, jobs, ImagesRequest, "image_generation")


def edits_endpoint(settings: Settings, generations: Generations, jobs: JobEndpoints) -> PictureEndpoint:
    """`POST /v1/images/edits`."""
    return PictureEndpoint(settings, generations, jobs, EditRequest, "image_edit")


async def _frames(
    first: LiveEvent, events: AsyncGenerator[LiveEvent], documents: PictureDocuments, *, progress: bool
) -> AsyncGenerator[bytes]:
    """Previews, steps if asked for, and every finished picture."""
    async for event in chained(first, events):
        match event:
            case StatusEvent():
                yield status_frame(event)
            case PreviewEvent():
                yield _frame(documents.preview(event.model_copy(update={"data": ""})), event.data)
            case ProgressEvent() if progress:
                document = documents.progress(event)
                yield data_frame(document, document["type"])
            case PictureResultEvent():
                documents.fingerprint = event.system_fingerprint
                for number, picture in enumerate(without_files(event).images):
                    made = documents.completed(number, picture, steps=event.steps, understood=event.understood)
                    yield _frame(made, event.images[number].data)


def _frame(document: dict[str, Any], file: str) -> bytes:
    parts, _ = json_parts(compact_json(document), [file], "b64_json")
    return frame(parts, document["type"])
