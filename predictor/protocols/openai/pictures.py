"""OpenAI's picture routes, streaming and not."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.fields import PictureFormat
from contract.openai.fields import fingerprint_member
from contract.openai.picture_documents import NO_USAGE, picture_head
from contract.openai.pictures import EditRequest, ImagesRequest
from contract.problems import ProblemError, invalid_field
from predictor.engine.events import PictureFinished, Preview, Progress, Started
from predictor.engine.generation import Generation
from predictor.engine.tasks import PictureTask
from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.picture_file import encode, encode_finished
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
        documents = _Documents(body, model.name, model.fingerprint)
        if body.stream:
            frames = _frames(generation, documents, kind, body.progress, http_request.url.path)
            return EventStream(frames, on_close=generation.close)
        return JSONResponse(await documents.whole(generation))

    return router


async def _frames(
    generation: Generation, documents: _Documents, kind: str, progress: bool, path: str
) -> AsyncGenerator[bytes]:
    """Previews and steps if asked for, and every finished picture, as events of this kind."""
    progressed = _StreamProgress()
    try:
        async for event in generation:
            match event:
                case Started() if progress:
                    yield _frame(f"{kind}.started", documents.named({"queue_s": event.queue_s}))
                case Progress() if progress and progressed.note(event, documents.count):
                    yield _frame(f"{kind}.progress", documents.named(progressed.document))
                case Preview():
                    yield _frame(f"{kind}.partial_image", documents.named(await documents.preview(event)))
                case PictureFinished():
                    yield _frame(f"{kind}.completed", documents.named(await documents.completed(event)))
    except ProblemError as error:  # too late for a status
        yield _frame("error", error_documents.document(path, error))


def _frame(kind: str, document: dict[str, Any]) -> bytes:
    return frame(json.dumps({"type": kind} | document, ensure_ascii=False, separators=(",", ":")), kind)


class _StreamProgress:
    """The step of the slowest picture, and the seconds until all are done if later steps take as long."""

    def __init__(self) -> None:
        self._steps: dict[int, int] = {}  # done, of each picture
        self._begun: float | None = None
        self._step = 0
        self.document: dict[str, Any] = {}

    def note(self, event: Progress, pictures: int) -> bool:
        """Take in a step; whether the slowest picture is further by it."""
        now = time.monotonic()
        self._steps[event.picture] = event.step
        if self._begun is None:
            self._begun = now
        done = min(self._steps.values()) if len(self._steps) == pictures else 0
        if done <= self._step:
            return False
        self._step = done
        every = (now - self._begun) / (done - 1) if done > 1 else None  # nobody knows when the first one began
        eta = None if every is None else round(every * (event.of - done), 3)
        self.document = {"step": done, "of": event.of, "eta_s": eta}
        return True


class _Documents:
    """The answer to one request: a whole document, or events. Other threads encode the files: a large PNG is slow."""

    def __init__(self, body: ImagesRequest, model: str, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint_member(fingerprint)
        self.count = body.n or 1
        self._model = model
        self._prompt = body.prompt
        self._format: PictureFormat = body.output_format or "png"
        self._previews: dict[int, int] = {}

    def named(self, document: dict[str, Any]) -> dict[str, Any]:
        """With the fingerprint, which OpenAI has for texts alone."""
        return {**document, **self._fingerprint}

    async def whole(self, generation: Generation) -> dict[str, Any]:
        """All pictures in one document; cancelling the wait closes the generation."""
        pictures, queue_s = await generation.pictures()
        data = [{"b64_json": await self._file(one), "revised_prompt": None, "seed": one.seed} for one in pictures]
        first = pictures[0]
        document = {
            **self._head(first.image, self._format),
            "data": data,
            "steps": first.steps,
            "understood": first.understood,
            "usage": NO_USAGE,
            "timing": {"queue_s": queue_s},
        }
        return self.named(document)

    async def preview(self, event: Preview) -> dict[str, Any]:
        number = self._previews.get(event.picture, 0)
        self._previews[event.picture] = number + 1
        data = await asyncio.to_thread(encode, event.image, PREVIEW_FORMAT)
        return {
            "b64_json": _base64(data),
            "partial_image_index": number,
            "image_index": event.picture,
            "step": event.step,
            **self._head(event.image, PREVIEW_FORMAT),
        }

    async def completed(self, event: PictureFinished) -> dict[str, Any]:
        return {
            "b64_json": await self._file(event),
            "image_index": event.picture,
            "seed": event.seed,
            "steps": event.steps,
            "understood": event.understood,
            "usage": NO_USAGE,
            **self._head(event.image, self._format),
        }

    async def _file(self, picture: PictureFinished) -> str:
        return _base64(await asyncio.to_thread(encode_finished, picture, self._format, self._prompt, self._model))

    @staticmethod
    def _head(image: Image.Image, form: PictureFormat) -> dict[str, Any]:
        return picture_head(f"{image.width}x{image.height}", form)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
