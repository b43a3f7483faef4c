"""OpenAI's picture routes, streaming and not, with further fields that diffusion models take.

Fields that diffusers does not know are accepted as long as they ask for what is done anyway.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter
from PIL import Image
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.fields import (
    Guidance,
    Mask,
    NegativePrompt,
    PictureCount,
    PictureFile,
    PictureFormat,
    PictureSize,
    PreviewCount,
    PromptText,
    Seed,
    Steps,
    Strength,
    StrictModel,
    only,
)
from contract.openai.fields import fingerprint_member
from contract.problems import ProblemError
from contract.request import Painting
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


def _none_if_auto(value: object) -> object:
    """OpenAI's "auto" leaves the choice to the model, and so does None."""
    return None if value == "auto" else value


class ImagesRequest(StrictModel):
    """Body of `POST /openai/v1/images/generations`."""

    model: str
    prompt: PromptText
    n: PictureCount | None = None
    size: Annotated[PictureSize | None, BeforeValidator(_none_if_auto)] = None
    output_format: PictureFormat | None = None
    stream: bool | None = None
    partial_images: PreviewCount | None = None
    # Beyond OpenAI's
    negative_prompt: NegativePrompt | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed | None = None
    progress: bool = Field(default=False, description="Whether a stream tells of every denoising step.")
    # Accepted only where they ask for what is done anyway
    response_format: Annotated[str | None, AfterValidator(only("b64_json"))] = None
    quality: Annotated[str | None, AfterValidator(only("auto", "standard"))] = None
    background: Annotated[str | None, AfterValidator(only("auto", "opaque"))] = None
    moderation: Annotated[str | None, AfterValidator(only("auto"))] = None
    style: Annotated[str | None, AfterValidator(only(None))] = None
    output_compression: Annotated[int | None, AfterValidator(only(None))] = None
    complexity: Annotated[Any, AfterValidator(only(None))] = None
    frame_count: Annotated[Any, AfterValidator(only(None))] = None
    frame_duration_ms: Annotated[Any, AfterValidator(only(None))] = None
    svg: Annotated[Any, AfterValidator(only(None))] = None
    # Accepted whatever they say
    safety_identifier: str | None = None
    user: str | None = None

    @property
    def painting(self) -> Painting:
        fields = {
            "negative_prompt": self.negative_prompt,
            "size": self.size,
            "steps": self.steps,
            "guidance": self.guidance,
            "n": self.n,
            "seed": self.seed,
        }
        return Painting.model_validate(fields)

    @property
    def task(self) -> PictureTask:
        previews = self.partial_images if self.stream else None
        return PictureTask(self.prompt, self.painting, previews or 0)


class EditRequest(ImagesRequest):
    """Body of `POST /openai/v1/images/edits`: JSON with the files in base64, or a form."""

    image: PictureFile
    mask: Mask | None = None
    strength: Strength | None = None  # beyond OpenAI's
    # Accepted only where they ask for what is done anyway
    input_fidelity: Annotated[str | None, AfterValidator(only("low"))] = None
    markup: Annotated[Any, AfterValidator(only(None))] = None

    @property
    def painting(self) -> Painting:
        files = {"image": self.image, "mask": self.mask, "strength": self.strength}
        return super().painting.model_copy(update=files)  # which were checked already, and are large


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
        model.check_name(body.model)
        generation = await model.submit(body.task, http_request.headers)
        documents = _Documents(body, model.fingerprint)
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

    def __init__(self, body: ImagesRequest, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint_member(fingerprint)
        self.count = body.n or 1
        self._model = body.model
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
            "usage": _USAGE,
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
            "usage": _USAGE,
            **self._head(event.image, self._format),
        }

    async def _file(self, picture: PictureFinished) -> str:
        return _base64(await asyncio.to_thread(encode_finished, picture, self._format, self._prompt, self._model))

    @staticmethod
    def _head(image: Image.Image, form: PictureFormat) -> dict[str, Any]:
        now = int(time.time())
        size = f"{image.width}x{image.height}"
        head = {"created": now, "created_at": now, "size": size, "quality": "auto", "background": "opaque"}
        return head | {"output_format": form}


_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""OpenAI's clients ask for it; a diffusion model counts no tokens."""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
