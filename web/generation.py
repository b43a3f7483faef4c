"""`POST /generate`: from an order to its events, and from the events to the answer that the client asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract import (
    ErrorEvent,
    GenerationRequest,
    ProblemError,
    ResultEvent,
    StatusEvent,
    TokenEvent,
    problems,
)
from web.accept import JSON, SSE, accepted_form
from web.draft import Draft
from web.gate import Gate
from web.identity import Identity
from wire.body import json_body
from wire.deadline import HEADER, request_seconds
from wire.sse import EventStream, frame

if TYPE_CHECKING:  # see web.upstream
    from web.settings import Settings
    from web.upstream import Upstream

log = logging.getLogger(__name__)

LiveEvent = StatusEvent | TokenEvent | ResultEvent  # an error travels as an exception until it is known where to


class Generate:
    """An ASGI endpoint and no function that returns a response: so it outlives the response and closes what is behind
    it, however the response ends."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream
        self._gates = {model: Gate(settings.max_in_flight) for model in settings.models}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        order = await json_body(request, GenerationRequest)
        model = self._served(order.model)
        seconds = request_seconds(request.headers, self._settings.generate_seconds)
        live = order.stream or accepted_form(request.headers) == SSE
        with self._gates[model].passing():
            async with aclosing(self._events(order, model, seconds, Identity.of(scope))) as events:
                response = await (self._stream(events) if live else _document(events))
                await response(scope, receive, send)

    def _served(self, name: str | None) -> str:
        models = self._settings.models
        if name is None:
            return next(iter(models))
        if name not in models:
            raise ProblemError(problems.UNKNOWN_MODEL, f"The models served here are: {', '.join(models)}.")
        return name

    async def _events(
        self, order: GenerationRequest, model: str, seconds: float, identity: Identity
    ) -> AsyncGenerator[LiveEvent]:
        """Statuses, tokens and the result; or a ProblemError on the way."""
        url = self._settings.models[model]
        deadline = asyncio.get_running_loop().time() + seconds
        headers = identity.headers | {HEADER: f"{seconds:g}"}
        draft = Draft(url, model, identity.arrived)
        async with self._upstream.open(url, model, order, headers, deadline) as exchange:
            yield StatusEvent(state="queued")
            running = False
            async for chunk in exchange.chunks():
                if not running:
                    running = True
                    yield StatusEvent(state="running")
                if piece := draft.add(chunk):
                    yield TokenEvent(text=piece)
        yield draft.result()

    async def _stream(self, events: AsyncGenerator[LiveEvent]) -> Response:
        # The first event means that the model server has accepted. A failure before it still gets its own status.
        first = await anext(events)
        return EventStream(_frames(first, events), heartbeat_seconds=self._settings.heartbeat_seconds)


async def _document(events: AsyncGenerator[LiveEvent]) -> Response:
    result = [event async for event in events if isinstance(event, ResultEvent)]
    return Response(result[0].model_dump_json(), media_type=JSON, headers={"Cache-Control": "no-store"})


async def _frames(first: LiveEvent, events: AsyncGenerator[LiveEvent]) -> AsyncGenerator[bytes]:
    """Ends with a result or an error, whatever happens."""
    try:
        yield _frame(first)
        async for event in events:
            yield _frame(event)
    except ProblemError as error:
        yield _error_frame(error)
    except Exception:
        log.exception("a stream failed")
        yield _error_frame(ProblemError(problems.INTERNAL, "Something went wrong on the server; its log says what."))


def _frame(event: LiveEvent) -> bytes:
    return frame(event.model_dump_json(), event.event)


def _error_frame(error: ProblemError) -> bytes:
    return frame(error.problem.model_dump_json(exclude_none=True), ErrorEvent.event)
