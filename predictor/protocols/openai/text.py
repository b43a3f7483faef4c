"""OpenAI's text routes, streaming and not. KServe's own (0.21) exist only where vLLM is installed."""

from __future__ import annotations

import json
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
from predictor.protocols.openai.chat import ChatDocuments, ChatRequest
from predictor.protocols.openai.completions import CompletionDocuments, CompletionRequest
from wire.body import json_body
from wire.sse import EventStream, frame

Documents = ChatDocuments | CompletionDocuments


def text_router(model: GenerationModel) -> APIRouter:
    """The routes of a text model."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)

    @router.post("/chat/completions")
    async def chat(http_request: Request) -> Response:
        return await answer(http_request, await json_body(http_request, ChatRequest), ChatDocuments)

    @router.post("/completions")
    async def completions(http_request: Request) -> Response:
        return await answer(http_request, await json_body(http_request, CompletionRequest), CompletionDocuments)

    async def answer(
        http_request: Request, body: ChatRequest | CompletionRequest, documents_of: type[Documents]
    ) -> Response:
        model.check_name(body.model)
        generation = await model.submit(body.task, http_request.headers)
        documents = documents_of(uuid.uuid4().hex, body.model)
        if body.stream:
            frames = _frames(generation, documents, body.streams_usage, http_request.url.path)
            return EventStream(frames, on_close=generation.close)
        completion = await generation.complete()
        return JSONResponse(documents.whole(completion))

    return router


async def _frames(generation: Generation, documents: Documents, usage: bool, path: str) -> AsyncGenerator[bytes]:
    """A first chunk once the task has a slot, pieces of text, the finish reason, totals if asked for, and [DONE]."""
    queue_s = 0.0
    try:
        async for event in generation:
            match event:
                case Started():
                    queue_s = event.queue_s
                    yield _data(documents.first())
                case Token():
                    yield _data(documents.piece(event.text))
                case TextFinished():
                    yield _data(documents.last(event))
                    if usage:
                        yield _data(documents.totals(event, queue_s))
                    yield frame("[DONE]")
    except ProblemError as error:  # too late for a status; OpenAI's clients raise what `error` says
        yield _data(error_documents.document(path, error))


def _data(document: dict[str, object]) -> bytes:
    return frame(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
