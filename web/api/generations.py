"""Generations on the way to whoever waits for them, in whatever shape they are answered: within the caller's share and
the limit of the model, over the REST backend or as a job that nobody else finds."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from contract import PictureResult, PictureResultEvent, ProblemError, ResultEvent, TextResult
from contract.events import LiveEvent
from web.api.concurrency_limit import ConcurrencyLimit, Place
from web.api.generation_call import GenerationCall
from web.api.jobs import JobEndpoints
from web.readiness.waiting_statuses import with_waiting_statuses
from web.rest.rest_request import RestRequest
from web.rest.telemetry.observation import observed
from wire.telemetry.generation import GenerationTelemetry

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.callers.shares import Shares
    from web.descriptions.descriptions import Descriptions
    from web.readiness.model_readiness import Readiness
    from web.rest.backend import RestBackend
    from web.settings import Settings


class Generations:
    """See the module. Without a `rest` backend each is a job."""

    def __init__(
        self,
        settings: Settings,
        jobs: JobEndpoints,
        rest: RestBackend | None,
        readiness: Mapping[str, Readiness],
        shares: Shares,
        descriptions: Descriptions,
    ) -> None:
        self.as_jobs = rest is None
        self._settings = settings
        self._jobs = jobs
        self._rest = rest
        self._readiness = readiness
        self._shares = shares
        self._descriptions = descriptions
        self._limits = {
            model: ConcurrencyLimit(model, settings.max_in_flight, settings.max_waiting) for model in settings.models
        }

    @asynccontextmanager
    async def place(self, call: GenerationCall, texts: int = 1) -> AsyncGenerator[dict[str, str]]:
        """A place in the share of the caller for so many like this one, which a job that is there already does not
        take; yields header fields. INVALID_FIELD where it is known what the model would say, so that it is not woken
        for that."""
        await self._check(call)
        if self._shares.limits(call.caller) and not await self._jobs.is_replay(call):
            async with self._shares.place(call.caller, call.cost * texts) as fields:
                yield fields
        else:
            yield {}

    async def _check(self, call: GenerationCall) -> None:
        try:
            self._descriptions.of(call.model).check(call.request, call.model)
        except ProblemError:
            if not await self._jobs.is_replay(call):
                raise

    @asynccontextmanager
    async def live(self, calls: Sequence[GenerationCall]) -> AsyncGenerator[list[AsyncGenerator[LiveEvent]]]:
        """The events of each call, with those of its waiting. Leaving the context cancels what has not ended.

        LOADING where a model is known to wake up later than its call can wait, before there is any event.
        """
        async with AsyncExitStack() as stack:
            streams: list[AsyncGenerator[LiveEvent]] = []
            for call in calls:
                if self._rest is None:
                    streams.append(await stack.enter_async_context(self._jobs.live_events(call)))
                else:
                    self._rest.check_wait(call.model, call.seconds)
                    events = await stack.enter_async_context(self._events(self._rest, call))
                    waiting = with_waiting_statuses(self._readiness[call.model], events)
                    streams.append(await stack.enter_async_context(aclosing(waiting)))
            yield streams

    async def result(self, call: GenerationCall) -> TextResult | PictureResult:
        """The whole result; a problem when there is none. Cancelled with its caller."""
        if self._rest is None:
            return await self._jobs.result(call)
        async with self._events(self._rest, call) as events:
            [result] = [event async for event in events if isinstance(event, ResultEvent | PictureResultEvent)]
            return result

    @asynccontextmanager
    async def _events(self, rest: RestBackend, call: GenerationCall) -> AsyncGenerator[AsyncGenerator[LiveEvent]]:
        """The events of a generation, within the limit of its model. Leaving the context cancels it."""
        telemetry = GenerationTelemetry(call.model, call.context.arrived, "accept")
        rest_request = RestRequest(
            request=call.request,
            model=call.model,
            id=uuid.uuid4().hex,
            arrived=call.context.arrived,
            seconds=call.seconds,
            headers=call.context.headers,
            caller=call.caller,
            live=call.live,
            telemetry=telemetry,
            own_limit=call.own_limit,
        )
        limit = self._limits[call.model]
        kind = self._settings.models[call.model].kind
        with observed(telemetry, call.request, kind), limit.acquire(call.caller, call.cost) as place:
            telemetry.enter("limit")
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
