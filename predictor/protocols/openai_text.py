"""The OpenAI routes, streaming and not. KServe's own need vLLM and vanish without it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.problems import ProblemError
from predictor.engine.events import Started, TextFinished, Token
from predictor.engine.generation import Generation
from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.openai_chat import ChatDocuments, ChatRequest, CompletionDocuments, CompletionRequest
from wire.body import json_body
from wire.sse import EventStream, frame

Documents = ChatDocuments | CompletionDocuments


def models_router(model: GenerationModel) -> APIRouter:
    """What is served, whatever it makes."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)
    card = {"id": model.name, "object": "model", "created": int(time.time()), "owned_by": "shangcai"}

    @router.get("/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [card]}

    @router.get("/models/{name:path}")
    async def model_card(name: str) -> dict[str, object]:
        model.check_name(name)
        return card

    return router


def text_router(model: GenerationModel) -> APIRouter:
    """The routes of a model that writes."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)

    @router.post("/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(request, await json_body(request, ChatRequest), ChatDocuments)

    @router.post("/completions")
    async def completions(request: Request) -> Response:
        return await answer(request, await json_body(request, CompletionRequest), CompletionDocuments)

    async def answer(request: Request, body: ChatRequest | CompletionRequest, documents: type[Documents]) -> Response:
        model.check_name(body.model)
        generation = await model.submit(body.task, request.headers)
        shapes = documents(uuid.uuid4().hex, body.model)
        if body.stream:
            frames = _frames(generation, shapes, body.streams_usage, request.url.path)
            return EventStream(frames, on_close=generation.close)
        completion = await generation.complete()
        return JSONResponse(shapes.whole(completion))

    return router


async def _frames(generation: Generation, shapes: Documents, usage: bool, path: str) -> AsyncGenerator[bytes]:
    """The stream: a first chunk once the task has a slot, pieces, the finish reason, totals if wanted, [DONE]."""
    queue_s = 0.0
    try:
        async for event in generation:
            match event:
                case Started():
                    queue_s = event.queue_s
                    yield _data(shapes.first())
                case Token():
                    yield _data(shapes.piece(event.text))
                case TextFinished():
                    yield _data(shapes.last(event))
                    if usage:
                        yield _data(shapes.totals(event, queue_s))
                    yield frame("[DONE]")
    except ProblemError as error:  # the status line is out; OpenAI's clients raise what `error` says
        yield _data(error_documents.document(path, error))


def _data(document: dict[str, object]) -> bytes:
    return frame(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
