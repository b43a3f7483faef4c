"""`POST /v1/responses`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from contract import ENDS, ProblemError, invalid_field, problems
from contract.openai.responses.documents import PREFIX
from contract.openai.responses.field_names import as_sent
from contract.openai.responses.request import ResponsesRequest
from contract.problems import raised
from web.api.generation_call import GenerationCall, plain_call
from web.api.model_choice import check_kind
from web.callers.caller import caller_of
from web.http.idempotency_key import idempotency_key
from web.http.preferences import RequestPreferences
from web.jobs.service import JobService
from web.jobs.store import answers_within
from web.responses.kept_responses import KeptResponses
from web.responses.response_frames import response_frames
from wire.body import json_body
from wire.deadline import request_seconds
from wire.sse import EventStream

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.api.generations import Generations
    from web.jobs.record import JobRecord
    from web.readiness.model_readiness import Readiness
    from web.settings import Settings

log = logging.getLogger(__name__)

UNSTORED_SECONDS = 30.0
"""How long an ended job is kept whose response is not to be stored, where nobody was left to delete it."""


class ResponseCreation:
    """An ASGI endpoint, as GenerateEndpoint is one and why. A response is a job; the client waits for its end, follows
    its events, or is answered at once. Without `background` it is cancelled when the client leaves, and without `store`
    nothing is left of it after the answer."""

    def __init__(
        self,
        settings: Settings,
        jobs: JobService,
        kept: KeptResponses,
        generations: Generations,
        readiness: Mapping[str, Readiness],
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._kept = kept
        self._generations = generations
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http_request = Request(scope, receive)
        body = await json_body(http_request, ResponsesRequest, self._settings.limits)
        call, kept = await self._read(body, http_request)
        async with self._generations.place(call) as fields, self._answer(body, call, kept) as response:
            response.headers.update(fields)
            await response(scope, receive, send)

    async def _read(self, body: ResponsesRequest, http_request: Request) -> tuple[GenerationCall, str]:
        """The call, and what is kept of its response."""
        settings, headers = self._settings, http_request.headers
        check_kind(settings.models, body.model, "text")
        key = idempotency_key(headers)
        if key is not None and not body.is_stored:
            raise invalid_field("Idempotency-Key", "may not come with store false, which keeps nothing to find again")
        background = bool(body.background)
        limit = settings.job_seconds if background else settings.generate_seconds
        seconds = request_seconds(headers, limit)
        async with answers_within(seconds):
            items = await self._kept.conversation(body, caller_of(http_request.scope))
        call = plain_call(settings, body.generation(items, settings.limits), http_request)
        preferences = RequestPreferences(respond_async=background, idempotency_key=key)
        call = replace(call, preferences=preferences, seconds=seconds, own_limit=seconds < limit)
        return call, self._kept.kept(body, items)

    @asynccontextmanager
    async def _answer(self, body: ResponsesRequest, call: GenerationCall, kept: str) -> AsyncGenerator[Response]:
        new = replace(
            call.job,
            sent=body,
            keep_seconds=self._settings.response_seconds if body.is_stored else UNSTORED_SECONDS,
            response=kept,
            hidden=not body.is_stored,
        )
        async with answers_within(call.seconds):
            record = await self._jobs.submit(new)
        lasting, answered = call.preferences.outlives_connection, False
        try:
            if body.stream:
                frames = response_frames(
                    self._jobs, self._readiness.get(record.model), record, -1, resumable=body.is_stored and lasting
                )
                heartbeat = self._settings.heartbeat_seconds
                yield EventStream(frames, heartbeat_seconds=heartbeat, resumable=body.is_stored and lasting)
            else:
                if not body.background:
                    record = await self._jobs.wait(record.id, self._settings.generate_seconds, found_again=lasting)
                    if record.state not in ENDS:  # this replica ends, and another goes on with it
                        detail = f"{PREFIX}{record.id} is not finished yet; the same Idempotency-Key finds it again."
                        raise ProblemError(
                            problems.UNAVAILABLE, detail, retry_after=await self._jobs.retry_after(record)
                        )
                    if (problem := record.problem) is not None:
                        raise as_sent(raised(problem))
                yield JSONResponse(await self._kept.document(record), headers={"Cache-Control": "no-store"})
            answered = True
        finally:
            if not lasting:
                await self._leave(record, answered=answered, stored=body.is_stored)

    async def _leave(self, record: JobRecord, *, answered: bool, stored: bool) -> None:
        """The client has its answer, or has left. A stream may end before its job, of which the rest is kept then."""
        with anyio.CancelScope(shield=True):
            try:
                if record.state not in ENDS and not (answered and stored):
                    record = await self._jobs.cancel(record.id)
                if not stored:
                    await self._jobs.delete(record)
            except ProblemError as error:  # it ends at its deadline, and is forgotten after that
                log.warning("response %s is left as it is: %s", record.id, error)
