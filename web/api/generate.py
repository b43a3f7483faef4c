"""`POST /generate`: from an order to its events, and from the events to the answer that the client asked for."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract import GenerationRequest, PictureResultEvent, ResultEvent
from contract.events import LiveEvent
from web.api.concurrency_limit import ConcurrencyLimit
from web.api.jobs import JobEndpoints
from web.api.model_choice import chosen_model
from web.http.accept import IMAGES, SSE, picture_form, text_form
from web.http.preferences import RequestPreferences
from web.http.request_context import RequestContext
from web.http.responses import live, whole
from web.readiness.waiting_statuses import with_waiting_statuses
from wire.body import json_body
from wire.deadline import request_seconds

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.readiness.model_readiness import Readiness
    from web.rest.backend import RestBackend
    from web.settings import Settings


class GenerateEndpoint:
    """An ASGI endpoint and no function that returns a response: so it outlives the response and closes what is behind
    it, however the response ends.

    What is to outlive its connection becomes a job, and so does everything where there is no `rest` to ask directly.
    """

    def __init__(
        self,
        settings: Settings,
        generations: JobEndpoints,
        rest: RestBackend | None,
        readiness: Mapping[str, Readiness],
    ) -> None:
        self._settings = settings
        self._readiness = readiness
        self._generations = generations
        self._rest = rest
        self._gates = {model: ConcurrencyLimit(settings.max_in_flight) for model in settings.models}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        sent = await json_body(request, GenerationRequest)
        model = chosen_model(self._settings.models, sent, request.headers)
        form = self._form(model, sent, request)
        order = sent.model_copy(update={"format": IMAGES[form]}) if form in IMAGES else sent
        wish = RequestPreferences.of(request.headers)
        if self._rest is None or wish.outlives:
            async with self._generations.made(request, sent, order, model, form, wish) as response:
                await response(scope, receive, send)
            return
        identity = RequestContext.of(scope)
        events = self._rest.events(
            order,
            model,
            request_seconds(request.headers, self._settings.generate_seconds),
            identity.headers,
            result_id=uuid.uuid4().hex,
            arrived=identity.arrived,
            live=form == SSE,
        )
        with self._gates[model].passing():
            async with aclosing(events):
                if form != SSE:
                    await (await _collected(events, form))(scope, receive, send)
                    return
                async with aclosing(with_waiting_statuses(self._readiness[model], events)) as told:
                    await (await live(told, self._settings.heartbeat_seconds))(scope, receive, send)

    def _form(self, model: str, order: GenerationRequest, request: Request) -> str:
        if order.stream:
            return SSE
        if self._settings.models[model].kind == "image":
            return picture_form(request.headers, order)
        return text_form(request.headers)


async def _collected(events: AsyncGenerator[LiveEvent], form: str) -> Response:
    [result] = [event async for event in events if isinstance(event, ResultEvent | PictureResultEvent)]
    return whole(result, form)
