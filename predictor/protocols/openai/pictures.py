"""OpenAI's picture routes, streaming and not."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.events import PreviewEvent, ProgressEvent
from contract.fields import PictureFormat
from contract.openai.picture_documents import PictureDocuments
from contract.openai.pictures import EditRequest, ImagesRequest
from contract.problems import ProblemError, invalid_field
from contract.result import Picture
from predictor.engine.events import PictureFinished, Preview, Progress, Started
from predictor.engine.generation import Generation
from predictor.engine.tasks import PictureTask
from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.picture_file import MEDIA_TYPES, encode, encoded
from wire.body import json_body
from wire.body.multipart import is_multipart, multipart_body
from wire.sse import EventStream, frame

PREVIEW_FORMAT: PictureFormat = "jpeg"


def images_router(model: GenerationModel) -> APIRouter:
    """The routes of a picture model."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)

    @router.post("/images/generations")
    async def images(http_request: Request) -> Response:
        return await answer(await json_body(http_request, ImagesRequest), http_request, "image_generation")

    @router.post("/images/edits")
    async def edits(http_request: Request) -> Response:
        if is_multipart(http_request):
            body = await multipart_body(http_request, EditRequest, files=("image", "mask"))
        else:
            body = await json_body(http_request, EditRequest)
        return await answer(body, http_request, "image_edit")

    async def answer(body: ImagesRequest, http_request: Request, kind: str) -> Response:
        model.check_name(body.model or model.name)
        if body.response_format == "url":
            raise invalid_field("response_format", 'is not supported here; leave it out or send "b64_json"')
        task = PictureTask(body.prompt, body.painting, body.previews)
        generation = await model.submit(task, http_request.headers)
        documents = PictureDocuments(body, kind, model.name, model.fingerprint)
        encode_one = partial(encoded, form=body.output_format or "png", prompt=body.prompt, model=model.name)
        if body.stream:
            frames = _frames(generation, documents, encode_one, body, http_request.url.path)
            return EventStream(frames, on_close=generation.close)
        pictures, queue_s = await generation.pictures()  # cancelling the wait closes the generation
        first, files = pictures[0], [await encode_one(one) for one in pictures]
        return JSONResponse(documents.whole(files, steps=first.steps, understood=first.understood, queue_s=queue_s))

    return router


async def _frames(
    generation: Generation,
    documents: PictureDocuments,
    encode_one: Callable[[PictureFinished], Awaitable[Picture]],
    body: ImagesRequest,
    path: str,
) -> AsyncGenerator[bytes]:
    """Previews and steps if asked for, and every finished picture."""
    progressed = _StreamProgress(body.n or 1)
    try:
        async for event in generation:
            match event:
                case Started() if body.progress:
                    yield _frame(documents.started(event.queue_s))
                case Progress() if body.progress and (step := progressed.further(event)):
                    yield _frame(documents.progress(step))
                case Preview():
                    yield _frame(documents.preview(await _preview(event)))
                case PictureFinished():
                    file = await encode_one(event)
                    yield _frame(
                        documents.completed(event.picture, file, steps=event.steps, understood=event.understood)
                    )
    except ProblemError as error:  # too late for a status
        yield frame(_json(error_documents.document(path, error)), "error")


async def _preview(event: Preview) -> PreviewEvent:
    file = base64.b64encode(await asyncio.to_thread(encode, event.image, PREVIEW_FORMAT)).decode()
    media_type = MEDIA_TYPES[PREVIEW_FORMAT]
    width, height = event.image.size
    return PreviewEvent(
        image=event.picture, step=event.step, data=file, media_type=media_type, width=width, height=height
    )


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _frame(document: dict[str, Any]) -> bytes:
    return frame(_json(document), document["type"])


class _StreamProgress:
    """The step of the slowest picture, and the seconds until all are done if later steps take as long."""

    def __init__(self, pictures: int) -> None:
        self._pictures = pictures
        self._steps: dict[int, int] = {}  # done, of each picture
        self._begun: float | None = None
        self._step = 0

    def further(self, event: Progress) -> ProgressEvent | None:
        """Take in a step; None where the slowest picture is no further by it."""
        now = time.monotonic()
        self._steps[event.picture] = event.step
        if self._begun is None:
            self._begun = now
        done = min(self._steps.values()) if len(self._steps) == self._pictures else 0
        if done <= self._step:
            return None
        self._step = done
        every = (now - self._begun) / (done - 1) if done > 1 else None  # nobody knows when the first one began
        eta = None if every is None else round(every * (event.of - done), 3)
        return ProgressEvent(step=done, of=event.of, eta_s=eta)
