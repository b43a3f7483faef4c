"""`POST /generate`: a generation, and its answer in the form that the client asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract import GenerationRequest, PictureResult, TextResult
from web.api.generation_call import GenerationCall, plain_call, read_call
from web.api.generations import Generations
from web.api.jobs import JobEndpoints
from web.http.accept import SSE
from web.http.responses import live, whole
from wire.body import json_body

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings


class GenerateEndpoint:
    """A call becomes a job where its headers ask for one, and always where there is no REST backend.

    An ASGI endpoint and no function that returns a response: so the generation is closed however the response ends.
    """

    def __init__(self, settings: Settings, jobs: JobEndpoints, generations: Generations) -> None:
        self._settings = settings
        self._jobs = jobs
        self._generations = generations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http_request = Request(scope, receive)
        sent = await json_body(http_request, GenerationRequest, self._settings.limits)
        call = read_call(self._settings, sent, http_request)
        async with self._generations.place(call) as fields, self._response(call) as response:
            response.headers.update(fields)
            await response(scope, receive, send)

    async def generate(self, request: GenerationRequest, http_request: Request) -> TextResult | PictureResult:
        """The whole result, for the page's form; a problem when there is none. Cancelled with its caller."""
        call = plain_call(self._settings, request, http_request)
        async with self._generations.place(call):
            return await self._generations.result(call)

    @asynccontextmanager
    async def _response(self, call: GenerationCall) -> AsyncGenerator[Response]:
        """The answer. Leaving the context cancels what has no preference to go on."""
        if self._generations.as_jobs or call.preferences.outlives_connection or call.base is not None:
            async with self._jobs.response(call) as response:
                yield response
        elif call.form == SSE:
            async with self._generations.live([call]) as [events]:
                yield await live(events, self._settings.heartbeat_seconds)
        else:
            yield whole(await self._generations.result(call), call.form)
