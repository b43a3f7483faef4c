"""The forms of an answer: JSON, live events, the file of a picture, or the files of several."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import cached_property
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ErrorEvent, Picture, PictureResult, PictureResultEvent, ProblemError, TextResult, problems
from contract.base64_parts import decoded, decoded_size
from contract.events import LiveEvent
from web.http.accept import JSON, MULTIPART
from web.http.entity_tag import entity_tag, unless_known
from web.http.parted_response import PartedResponse, json_parts, without_files
from wire.problems import told_problem
from wire.sse import EventStream, frame

log = logging.getLogger(__name__)

JOB_HEADERS = ("Location", "Preference-Applied")
"""Headers of an answer that comes from a job."""

PICTURE_HEADERS = ("ETag", "Content-Disposition", "X-Model", "X-Seed", "X-Steps", "X-Understood")
"""Headers of an answer that is a picture."""

UNDERSTOOD_CHARS = 2_048
"""Longest X-Understood; words beyond that are left out. The JSON form has all of them."""

_UNCACHED = {"Cache-Control": "no-store"}
_LINE_END = b"\r\n"


class StaticDocument:
    """A JSON document that stays the same while the server runs, made when it is first asked for."""

    def __init__(self, make: Callable[[], dict[str, Any]], **headers: str) -> None:
        self._make = make
        self._headers = {"Cache-Control": "no-cache", **headers}

    @cached_property
    def _response(self) -> Response:
        response = JSONResponse(self._make(), headers=self._headers)
        response.headers["ETag"] = entity_tag(bytes(response.body))
        return response

    async def serve(self, http_request: Request) -> Response:
        return unless_known(http_request.headers, self._response)


async def live(events: AsyncGenerator[LiveEvent], heartbeat_seconds: float) -> Response:
    """The events as server-sent events. A problem before the first one is raised, and so gets a status of its own."""
    first = await anext(events)
    return EventStream(_frames(first, events), heartbeat_seconds=heartbeat_seconds)


def whole(result: TextResult | PictureResult, form: str) -> Response:
    """The whole result as JSON, as the file of its picture, or as the files of several in one multipart body."""
    if isinstance(result, TextResult):
        return Response(result.model_dump_json(), media_type=JSON, headers=_UNCACHED)
    if form == JSON:
        parts, size = json_parts(without_files(result).model_dump_json(), [picture.data for picture in result.images])
        return PartedResponse(parts, size, headers={**_UNCACHED, "Content-Type": JSON})
    if form == MULTIPART:
        return _multipart(result)
    assert len(result.images) == 1
    return picture_file(result, 0)


def picture_file(result: PictureResult, number: int) -> Response:
    """One of the pictures as its file."""
    picture = result.images[number]
    digest = hashlib.sha256()
    for part in decoded(picture.data):
        digest.update(part)
    headers = {
        **_UNCACHED,
        **_result_headers(result),
        **_picture_headers(result, picture, number),
        "ETag": f'"{digest.hexdigest()[:32]}"',
        "Content-Type": picture.media_type,
    }
    return PartedResponse(decoded(picture.data), decoded_size(picture.data), headers=headers)


def _multipart(result: PictureResult) -> Response:
    """RFC 2046. The boundary is the result's random id, which no picture holds."""
    boundary = b"--" + result.id.encode()
    heads = []
    for index, picture in enumerate(result.images):
        headers = {
            "Content-Type": picture.media_type,
            "Content-Length": str(decoded_size(picture.data)),
            **_picture_headers(result, picture, index),
        }
        lines = [boundary, *(f"{name}: {value}".encode() for name, value in headers.items()), b"", b""]
        heads.append(_LINE_END.join(lines))
    last = boundary + b"--" + _LINE_END

    def parts() -> Iterator[bytes]:
        for head, picture in zip(heads, result.images, strict=True):
            yield head
            yield from decoded(picture.data)
            yield _LINE_END
        yield last

    files = sum(decoded_size(picture.data) + len(_LINE_END) for picture in result.images)
    headers = {**_UNCACHED, **_result_headers(result), "Content-Type": f"{MULTIPART}; boundary={result.id}"}
    return PartedResponse(parts(), sum(map(len, heads)) + files + len(last), headers=headers)


def _result_headers(result: PictureResult) -> dict[str, str]:
    headers = {"X-Model": quote(result.model)}
    if result.steps is not None:
        headers["X-Steps"] = str(result.steps)
    if result.understood is not None:
        words = ",".join(quote(word, safe="") for word in result.understood)
        # Up to the last comma within the limit: half a word would mislead.
        cut = words if len(words) <= UNDERSTOOD_CHARS else words[: UNDERSTOOD_CHARS + 1].rpartition(",")[0]
        headers["X-Understood"] = cut
    return headers


def _picture_headers(result: PictureResult, picture: Picture, index: int = 0) -> dict[str, str]:
    # A header is ASCII and a model's name may be anything: X-Model encodes it, and the file's name replaces characters.
    number = index if picture.seed is None else picture.seed
    suffix = picture.media_type.removeprefix("image/")
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', result.model)}-{number}.{suffix}"
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    if picture.seed is not None:
        headers["X-Seed"] = str(picture.seed)
    return headers


async def _frames(first: LiveEvent, events: AsyncGenerator[LiveEvent]) -> AsyncGenerator[bytes]:
    """Frames that end with a result or an error in every case."""
    try:
        yield _frame(first)
        async for event in events:
            yield _frame(event)
    except ProblemError as error:
        yield _error_frame(error)
    except Exception:
        log.exception("a stream failed")
        yield _error_frame(problems.internal())


def _frame(event: LiveEvent) -> bytes:
    if isinstance(event, PictureResultEvent):
        parts, _ = json_parts(without_files(event).model_dump_json(), [picture.data for picture in event.images])
        return frame(parts, event.event)
    return frame(event.model_dump_json(), event.event)


def _error_frame(error: ProblemError) -> bytes:
    return frame(told_problem(error).model_dump_json(exclude_none=True), ErrorEvent.event)
