"""`POST /v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from contract import ProblemError, TextResult, invalid_field
from contract.openai.chat import ChatRequest
from contract.openai.completions import CompletionRequest
from contract.openai.fields import TextRequest
from contract.openai.text_documents import ChatDocuments, CompletionDocuments, TextDocuments
from contract.problems import renamed
from web.api.generation_call import GenerationCall, plain_call
from web.api.generations import Generations
from web.api.model_choice import check_kind
from web.http.event_frames import caught
from web.openai.text_frames import text_frames
from wire.body import json_body
from wire.concurrency.all_of import all_of
from wire.concurrency.merged_streams import merged
from wire.sse import EventStream

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings


class TextEndpoint:
    """One of the two: what its body is, and its documents. An ASGI endpoint, as GenerateEndpoint is one and why."""

    def __init__(
        self, settings: Settings, generations: Generations, body: type[TextRequest], documents: type[TextDocuments]
    ) -> None:
        self._settings = settings
        self._generations = generations
        self._body = body
        self._documents = documents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http_request = Request(scope, receive)
        body = await json_body(http_request, self._body, self._settings.limits)
        if body.cache_salt is not None:
            raise invalid_field("cache_salt", "is not supported here: a cache is one caller's alone already")
        check_kind(self._settings.models, body.model, "text")
        try:
            await self._answer(body, http_request, send)
        except ProblemError as error:
            raise renamed(error, body.names) from None

    async def _answer(self, body: TextRequest, http_request: Request, send: Send) -> None:
        calls = [plain_call(self._settings, request, http_request) for request in body.requests]
        documents = self._documents(uuid.uuid4().hex, calls[0].model, None)
        async with self._generations.place(calls[0], len(calls)) as fields:
            if not body.stream:
                results = await all_of([self._text(call) for call in calls])
                documents.fingerprint = results[0].system_fingerprint
                whole = JSONResponse(documents.whole(results), headers={"Cache-Control": "no-store"} | fields)
                await whole(http_request.scope, http_request.receive, send)
                return
            async with self._generations.live(calls) as streams, aclosing(merged(streams)) as events:
                first = await anext(events)  # a problem before it has a status of its own
                frames = text_frames(first, events, documents, len(calls), with_usage=body.streams_usage)
                stream = EventStream(caught(frames, body.names), heartbeat_seconds=self._settings.heartbeat_seconds)
                stream.headers.update(fields)
                await stream(http_request.scope, http_request.receive, send)

    async def _text(self, call: GenerationCall) -> TextResult:
        result = await self._generations.result(call)
        assert isinstance(result, TextResult)
        return result


def chat_endpoint(settings: Settings, generations: Generations) -> TextEndpoint:
    """`POST /v1/chat/completions`."""
    return TextEndpoint(settings, generations, ChatRequest, ChatDocuments)


def completions_endpoint(settings: Settings, generations: Generations) -> TextEndpoint:
    """`POST /v1/completions`."""
    return TextEndpoint(settings, generations, CompletionRequest, CompletionDocuments)
