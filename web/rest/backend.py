"""The REST backend: asks model servers directly, at their OpenAI routes, always for a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from contract import GenerationRequest, PictureResultEvent, ResultEvent, StatusEvent
from contract.events import LiveEvent
from web.client.call import Call, Event
from web.rest.picture_call import picture_call
from web.rest.picture_result import PictureResultBuilder
from web.rest.rest_request import RestRequest
from web.rest.result_builder import ResultBuilder
from web.rest.text_call import text_call
from web.rest.text_result import TextResultBuilder

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.jobs.journal import JobJournal
    from web.jobs.record import JobRecord
    from web.rest.upstream import Upstream
    from web.setting_values import ServedModel


class RestBackend:
    """See the module."""

    def __init__(self, models: Mapping[str, ServedModel], upstream: Upstream) -> None:
        self._models = models
        self._upstream = upstream

    def events(self, rest_request: RestRequest) -> AsyncGenerator[LiveEvent]:
        """Statuses, tokens or progress and previews, and the result. Closing the generator cancels the generation.

        Whatever goes wrong is raised as a ProblemError.
        """
        request, served = rest_request.request, self._models[rest_request.model]
        model = served.upstream_model or rest_request.model
        if served.kind == "image":
            call = picture_call(model, request, previews=rest_request.previews)
            return self._events(rest_request, call, PictureResultBuilder(served.address, rest_request))
        return self._events(rest_request, text_call(model, request), TextResultBuilder(served.address, rest_request))

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        """Generate a job to its end; a ProblemError when there is no result."""
        rest_request = RestRequest(
            request=GenerationRequest.model_validate_json(record.request),
            model=record.model,
            id=record.id,
            arrived=time.perf_counter() - (time.time() - record.created),
            seconds=max(record.deadline - time.time(), 0),
            headers=record.headers,
            caller=record.caller,
            previews=True,
            waits_for_waking=True,
        )
        events = self.events(rest_request)
        async with aclosing(events), aclosing(_JobLogWriter(record.id, journal)) as writer:
            async for event in events:
                match event:
                    case StatusEvent(state="queued"):
                        pass  # which it has been since it was submitted
                    case ResultEvent() | PictureResultEvent():
                        await writer.flush()
                        await journal.end(record.id, event)
                    case _:
                        if event == StatusEvent(state="running"):
                            await journal.start(record.id)
                        writer.append(event)

    async def cancel(self, record: JobRecord) -> None:
        """Nothing is left to do: closing the connection has cancelled it."""

    async def _events(
        self, rest_request: RestRequest, call: Call[Event], builder: ResultBuilder[Event]
    ) -> AsyncGenerator[LiveEvent]:
        async with self._upstream.open(rest_request, call) as exchange:
            yield StatusEvent(state="queued")
            running = False
            async for event in exchange.events():
                if not running:
                    running = True
                    yield StatusEvent(state="running")
                for live_event in builder.add(event):
                    yield live_event
        yield builder.result()


class _JobLogWriter:
    """Writes events into a job's log. Those that come during a write go together with the next one."""

    def __init__(self, job: str, journal: JobJournal) -> None:
        self._job = job
        self._journal = journal
        self._events: list[LiveEvent] = []
        self._writing: asyncio.Task[None] | None = None

    def append(self, event: LiveEvent) -> None:
        """Raises what an earlier write went wrong with."""
        self._events.append(event)
        if self._writing is None or self._writing.done():
            if self._writing is not None:
                self._writing.result()
            self._writing = asyncio.create_task(self._write())

    async def flush(self) -> None:
        """Wait until everything is written; raises what went wrong."""
        if self._writing is not None:
            await self._writing

    async def aclose(self) -> None:
        """Write no more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})

    async def _write(self) -> None:
        while self._events:
            events, self._events = self._events, []
            await self._journal.append(self._job, events)
