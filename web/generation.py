"""`POST /generate`: from an order to its events, and from the events to the answer that the client asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from contract import GenerationRequest, StatusEvent
from web.accept import IMAGES, SSE, picture_form, text_form
from web.answers import live, whole
from web.calls import Call, Event, picture_call, text_call
from web.choice import chosen_model
from web.draft import Draft, LiveEvent
from web.gate import Gate
from web.identity import Identity
from web.picture_draft import PictureDraft
from web.text_draft import TextDraft
from wire.body import json_body
from wire.deadline import HEADER, request_seconds

if TYPE_CHECKING:  # see web.upstream
    from web.settings import Settings
    from web.upstream import Upstream


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
        model = chosen_model(self._settings.models, order, request.headers)
        seconds = request_seconds(request.headers, self._settings.generate_seconds)
        form = self._form(model, order, request)
        if form in IMAGES:
            order = order.model_copy(update={"format": IMAGES[form]})
        with self._gates[model].passing():
            async with aclosing(self._events(order, model, seconds, Identity.of(scope), form)) as events:
                response = await (
                    live(events, self._settings.heartbeat_seconds) if form == SSE else whole(events, form)
                )
                await response(scope, receive, send)

    def _form(self, model: str, order: GenerationRequest, request: Request) -> str:
        if order.stream:
            return SSE
        if self._settings.models[model].kind == "image":
            return picture_form(request.headers, order)
        return text_form(request.headers)

    def _events(
        self, order: GenerationRequest, model: str, seconds: float, identity: Identity, form: str
    ) -> AsyncGenerator[LiveEvent]:
        served = self._settings.models[model]
        if served.kind == "image":
            pictures = PictureDraft(served.url, model, identity.arrived, order)
            return self._told(served.url, picture_call(model, order, live=form == SSE), pictures, seconds, identity)
        text = TextDraft(served.url, model, identity.arrived)
        return self._told(served.url, text_call(model, order), text, seconds, identity)

    async def _told(
        self, url: str, call: Call[Event], draft: Draft[Event], seconds: float, identity: Identity
    ) -> AsyncGenerator[LiveEvent]:
        """Statuses, what the draft tells, and the result; or a ProblemError on the way."""
        deadline = asyncio.get_running_loop().time() + seconds
        headers = identity.headers | {HEADER: f"{seconds:g}"}
        async with self._upstream.open(url, call, headers, deadline) as exchange:
            yield StatusEvent(state="queued")
            running = False
            async for event in exchange.events():
                if not running:
                    running = True
                    yield StatusEvent(state="running")
                for told in draft.add(event):
                    yield told
        yield draft.result()
