"""OpenAI's text routes, streaming and not. KServe's own (0.21) exist only where vLLM is installed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.openai.chat import ChatRequest
from contract.openai.completions import CompletionRequest
from contract.openai.fields import TextRequest
from contract.openai.text_documents import ChatDocuments, CompletionDocuments, TextDocuments
from contract.problems import ProblemError, renamed
from predictor.engine.events import Reasoning, Started, TextFinished, Token, ToolCallPiece
from predictor.engine.generation import Generation
from predictor.engine.tasks import TextTask
from predictor.protocols import error_documents
from predictor.protocols.conversation import text_task
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.text_answer import text_result, tool_call_event, usage
from wire.body import json_body
from wire.concurrency.all_of import all_of
from wire.concurrency.merged_streams import merged
from wire.request_context import WHOLE_HEADER
from wire.sse import EventStream, LastFrame, frame


def text_router(model: GenerationModel) -> APIRouter:
    """The routes of a text model."""
    router = APIRouter(prefix=error_documents.OPENAI_PREFIX)

    @router.post("/chat/completions")
    async def chat(http_request: Request) -> Response:
        return await answer(http_request, await json_body(http_request, ChatRequest), ChatDocuments)

    @router.post("/completions")
    async def completions(http_request: Request) -> Response:
        return await answer(http_request, await json_body(http_request, CompletionRequest), CompletionDocuments)

    async def answer(http_request: Request, body: TextRequest, documents_of: type[TextDocuments]) -> Response:
        begun = time.monotonic()
        model.check_name(body.model)
        tasks = [replace(text_task(request), cache_salt=body.cache_salt) for request in body.requests]
        model.check_count("prompt", len(tasks))
        documents = documents_of(uuid.uuid4().hex, body.model, model.fingerprint)
        generations: list[Generation] = []

        def close() -> None:
            for generation in generations:
                generation.close()

        try:
            for number, task in enumerate(tasks):
                # Of several prompts the one is named that is refused.
                named = number // (body.n or 1) if len(tasks) > (body.n or 1) else None
                generations.append(await _submitted(model, task, http_request, named))
            if not body.stream:
                completions = await all_of([generation.complete() for generation in generations])
                results = [text_result(documents.id, model.name, completion, begun) for completion in completions]
                return JSONResponse(documents.whole(results))
        except BaseException:
            close()
            raise
        whole = http_request.headers.get(WHOLE_HEADER) == "1"
        frames = text_frames(generations, documents, body.streams_usage, http_request.url.path, whole=whole)
        return EventStream(frames, on_close=close)

    return router


async def _submitted(model: GenerationModel, task: TextTask, http_request: Request, number: int | None) -> Generation:
    """A generation of the task, which is that of the prompt with this `number` where there are several."""
    try:
        return await model.submit(task, http_request.headers)
    except ProblemError as error:
        raise renamed(error, {} if number is None else {"prompt": f"prompt.{number}"}) from None


async def text_frames(
    generations: list[Generation], documents: TextDocuments, with_usage: bool, path: str, *, whole: bool = False
) -> AsyncGenerator[bytes]:
    """Of each text a first chunk once it or a later one has a slot, for OpenAI's client for Python takes the order in
    which it hears of them for their numbers; pieces, and the finish reason; totals if asked for, and [DONE].

    Of a single text those that are there already come together: sending costs more than making them. Where it is wanted
    `whole`, all from the second piece on come with the end; the first tells how long it took.
    """
    queue_s = 0.0
    begun = 0
    piece_sent = False
    ends: list[TextFinished] = []
    made: list[bytes] = []
    try:
        async with aclosing(merged(generations)) as events:
            async for index, event in events:
                match event:
                    case Started():
                        queue_s = max(queue_s, event.queue_s)
                        made += [_data(documents.first(number)) for number in range(begun, index + 1)]
                        begun = max(begun, index + 1)
                    case Token():
                        made.append(_data(documents.piece(index, event.text, event.logprobs)))
                    case Reasoning() if document := documents.reasoning(index, event.text):
                        made.append(_data(document))
                    case ToolCallPiece() if document := documents.tool_call(index, tool_call_event(event)):
                        made.append(_data(document))
                    case TextFinished():
                        ends.append(event)
                        made.append(_data(documents.last(index, event.finish_reason)))
                is_last = len(ends) == len(generations)
                more = len(generations) == 1 and generations[0].has_more
                kept = whole and (piece_sent or isinstance(event, Started))
                if made and not is_last and not more and not kept:
                    yield b"".join(made)
                    made.clear()
                    piece_sent = True
        if with_usage:
            made.append(_data(documents.totals([usage(end) for end in ends], queue_s)))
        made.append(frame("[DONE]"))
    except ProblemError as error:  # too late for a status; OpenAI's clients raise what `error` says
        made.append(_data(error_documents.document(path, error)))
    yield LastFrame(b"".join(made))


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _data(document: dict[str, object]) -> bytes:
    return frame(_encode(document))
