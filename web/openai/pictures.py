"""`POST /v1/images/generations` and `/v1/images/edits`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract import (
    LiveEvent,
    PictureResult,
    PictureResultEvent,
    PreviewEvent,
    ProgressEvent,
    StatusEvent,
    invalid_field,
)
from contract.fields import PictureFormat
from contract.openai.fields import fingerprint_member
from contract.openai.picture_documents import NO_USAGE, picture_head
from contract.openai.pictures import EditRequest, ImagesRequest
from web.api.generation_call import GenerationCall, plain_call
from web.api.generations import Generations
from web.api.jobs import JobEndpoints
from web.http.accept import JSON
from web.http.event_frames import caught, chained, compact_json, data_frame, status_frame
from web.http.origin import check_origin
from web.http.parted_response import PartedResponse, json_parts
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
        call = plain_call(self._settings, body.request, http_request)
        async with self._generations.place(call) as fields:
            if body.stream:
                async with self._generations.live([call]) as [events]:
                    first = await anext(events)  # a problem before it has a status of its own
                    frames = caught(_frames(first, events, self._kind, body))
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
        form = body.output_format or "png"
        if body.response_format == "url":
            kept_result, urls = await self._jobs.addresses(call, public_base(self._settings, scope))
            document = _document(kept_result, form, [{"url": url} for url in urls])
            return Response(json.dumps(document), headers=_UNCACHED)
        result = await self._generations.result(call)
        assert isinstance(result, PictureResult)
        document = _document(result, form, [{"b64_json": ""} for _ in result.images])
        files = [picture.data for picture in result.images]
        parts, size = json_parts(compact_json(document), files, "b64_json")
        return PartedResponse(parts, size, headers=_UNCACHED)


def generations_endpoint(settings: Settings, generations: Generations, jobs: JobEndpoints) -> PictureEndpoint:
    """`POST /v1/images/generations`."""
    return PictureEndpoint(settings, generations, jobs, ImagesRequest, "image_generation")


def edits_endpoint(settings: Settings, generations: Generations, jobs: JobEndpoints) -> PictureEndpoint:
    """`POST /v1/images/edits`."""
    return PictureEndpoint(settings, generations, jobs, EditRequest, "image_edit")


def _document(result: PictureResult, form: PictureFormat, files: list[dict[str, str]]) -> dict[str, Any]:
    first = result.images[0]
    data = [
        {**file, "revised_prompt": None, "seed": picture.seed}
        for file, picture in zip(files, result.images, strict=True)
    ]
    return {
        **picture_head(f"{first.width}x{first.height}", form),
        "data": data,
        "steps": result.steps,
        "understood": result.understood,
        "usage": NO_USAGE,
        "timing": {"queue_s": result.timing.queue_s},
        **fingerprint_member(result.system_fingerprint),
    }


async def _frames(
    first: LiveEvent, events: AsyncGenerator[LiveEvent], kind: str, body: ImagesRequest
) -> AsyncGenerator[bytes]:
    """Previews, steps if asked for, and every finished picture."""
    previews: dict[int, int] = {}
    async for event in chained(first, events):
        for encoded in _told(event, kind, body, previews):
            yield encoded


def _told(event: LiveEvent, kind: str, body: ImagesRequest, previews: dict[int, int]) -> Iterator[bytes]:
    """The frames of an event. `previews` counts those of each picture."""
    match event:
        case PreviewEvent():
            number = previews.get(event.image, 0)
            previews[event.image] = number + 1
            form: Any = event.media_type.removeprefix("image/")
            document = {
                **picture_head(body.size or "auto", form),
                "partial_image_index": number,
                "image_index": event.image,
                "step": event.step,
            }
            yield _frame(f"{kind}.partial_image", document, event.data)
        case ProgressEvent() if body.progress:
            yield _frame(f"{kind}.progress", {"step": event.step, "of": event.of, "eta_s": event.eta_s})
        case PictureResultEvent():
            for number, picture in enumerate(event.images):
                document = {
                    **picture_head(f"{picture.width}x{picture.height}", body.output_format or "png"),
                    "image_index": number,
                    "seed": picture.seed,
                    "steps": event.steps,
                    "understood": event.understood,
                    "usage": NO_USAGE,
                    **fingerprint_member(event.system_fingerprint),
                }
                yield _frame(f"{kind}.completed", document, picture.data)
        case StatusEvent():
            yield status_frame(event)


def _frame(kind: str, document: dict[str, Any], file: str | None = None) -> bytes:
    if file is None:
        return data_frame({"type": kind, **document}, kind)
    parts, _ = json_parts(compact_json({"type": kind, **document, "b64_json": ""}), [file], "b64_json")
    return frame(parts, kind)
