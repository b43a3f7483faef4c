"""`POST /generate`: a generation, and its answer in the form that the client asked for."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract import GenerationRequest, PictureResult, PictureResultEvent, ResultEvent, TextResult
from contract.events import LiveEvent
from web.api.concurrency_limit import ConcurrencyLimit, Place
from web.api.generation_call import GenerationCall, plain_call, read_call
from web.api.jobs import JobEndpoints
from web.http.accept import SSE
from web.http.responses import live, whole
from web.readiness.waiting_statuses import with_waiting_statuses
from web.rest.rest_request import RestRequest
from wire.body import json_body

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.callers.shares import Shares
    from web.readiness.model_readiness import Readiness
    from web.rest.backend import RestBackend
    from web.settings import Settings


class GenerateEndpoint:
    """A call becomes a job where its headers ask for one, or its query for addresses of pictures, which are a job's;
    and always where there is no `rest` backend.

    An ASGI endpoint and no function that returns a response: so the generation is closed however the response ends.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: JobEndpoints,
        rest: RestBackend | None,
        readiness: Mapping[str, Readiness],
        shares: Shares,
    ) -> None:
        self._shares = shares
        self._settings = settings
        self._readiness = readiness
        self._jobs = jobs
        self._rest = rest
        self._limits = {
            model: ConcurrencyLimit(settings.max_in_flight, settings.max_waiting) for model in settings.models
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http_request = Request(scope, receive)
        sent = await json_body(http_request, GenerationRequest, self._settings.limits)
        call = read_call(self._settings, sent, http_request)
        async with self._place(call) as fields, self._response(call) as response:
            response.headers.update(fields)
            await response(scope, receive, send)

    async def generate(self, request: GenerationRequest, http_request: Request) -> TextResult | PictureResult:
        """The whole result, for the page's form; a problem when there is none. Cancelled with its caller."""
        call = plain_call(self._settings, request, http_request)
        async with self._place(call):
            if self._rest is None:
                return await self._jobs.result(call)
            async with self._events(self._rest, call) as events:
                return await _result(events)

    @asynccontextmanager
    async def _place(self, call: GenerationCall) -> AsyncGenerator[dict[str, str]]:
        """A place in the share of the caller, which a job that is there already does not take; yields header fields."""
        if self._shares.limits(call.caller) and not await self._jobs.is_replay(call):
            async with self._shares.place(call.caller, call.cost) as fields:
                yield fields
        else:
            yield {}

    @asynccontextmanager
    async def _response(self, call: GenerationCall) -> AsyncGenerator[Response]:
        """The answer. Leaving the context cancels what has no preference to go on."""
        if self._rest is None or call.preferences.outlives_connection or call.base is not None:
            async with self._jobs.response(call) as response:
                yield response
            return
        async with self._events(self._rest, call) as events:
            if call.form != SSE:
                yield whole(await _result(events), call.form)
                return
            async with aclosing(with_waiting_statuses(self._readiness[call.model], events)) as all_events:
                yield await live(all_events, self._settings.heartbeat_seconds)

    @asynccontextmanager
    async def _events(self, rest: RestBackend, call: GenerationCall) -> AsyncGenerator[AsyncGenerator[LiveEvent]]:
        """The events of a generation, within the limit of its model. Leaving the context cancels it."""
        rest_request = RestRequest(
            request=call.request,
            model=call.model,
            id=uuid.uuid4().hex,
            arrived=call.context.arrived,
            seconds=call.seconds,
            headers=call.context.headers,
            caller=call.caller,
            live=call.form == SSE,
        )
        limit = self._limits[call.model]
        with limit.acquire(call.caller, call.cost) as place:
            async with aclosing(_let_through(limit, place, rest, rest_request)) as events:
                yield events


async def _let_through(
    limit: ConcurrencyLimit, place: Place, rest: RestBackend, rest_request: RestRequest
) -> AsyncGenerator[LiveEvent]:
    """The events of a request that first waits for its turn."""
    begun = time.monotonic()
    await limit.wait(place, rest_request.seconds)
    left = rest_request.seconds - (time.monotonic() - begun)
    async with aclosing(rest.events(replace(rest_request, seconds=max(0, left)))) as events:
        async for event in events:
            yield event


async def _result(events: AsyncGenerator[LiveEvent]) -> TextResult | PictureResult:
    [result] = [event async for event in events if isinstance(event, ResultEvent | PictureResultEvent)]
    return result
