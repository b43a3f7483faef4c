"""The way to a model server over REST: its OpenAI routes, always as a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from contract import GenerationRequest, PictureResultEvent, ResultEvent, StatusEvent
from contract.events import LiveEvent
from web.client.call import Call, Event
from web.rest.picture_call import picture_call, text_call
from web.rest.picture_result import PictureResultBuilder
from web.rest.result_builder import ResultBuilder
from web.rest.text_result import TextResultBuilder

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.jobs.journal import JobJournal
    from web.jobs.record import JobRecord
    from web.rest.upstream import Upstream
    from web.settings import ServedModel


class RestBackend:
    """Asks model servers directly."""

    def __init__(self, models: Mapping[str, ServedModel], upstream: Upstream) -> None:
        self._models = models
        self._upstream = upstream

    def events(
        self,
        order: GenerationRequest,
        model: str,
        seconds: float,
        headers: dict[str, str],
        *,
        result_id: str,
        arrived: float,
        live: bool,
        patient: bool = False,
    ) -> AsyncGenerator[LiveEvent]:
        """Statuses, what comes on the way, and the result; or a ProblemError on the way. Closing it cancels.

        `arrived` is when the request came, on the clock of `time.perf_counter`; `live` says whether somebody is going
        to see previews; `patient` is what Upstream calls so.
        """
        served = self._models[model]

        def told(call: Call[Event], draft: ResultBuilder[Event]) -> AsyncGenerator[LiveEvent]:
            return self._told(model, call, draft, seconds, headers, patient=patient)

        if served.kind == "image":
            pictures = PictureResultBuilder(served.address, model, result_id, arrived, order)
            return told(picture_call(model, order, live=live), pictures)
        return told(text_call(model, order), TextResultBuilder(served.address, model, result_id, arrived))

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        """From a job to its end; a ProblemError when it does not come to one."""
        order = GenerationRequest.model_validate_json(record.request)
        events = self.events(
            order,
            record.model,
            max(record.deadline - time.time(), 0),
            record.headers,
            result_id=record.id,
            arrived=time.perf_counter() - (time.time() - record.created),
            live=True,
            patient=True,
        )
        async with aclosing(events), aclosing(_JobLogWriter(record.id, journal)) as scribe:
            async for event in events:
                match event:
                    case StatusEvent(state="queued"):
                        pass  # which it has been all the time
                    case ResultEvent() | PictureResultEvent():
                        await scribe.written()
                        await journal.end(record.id, event)
                    case _:
                        if event == StatusEvent(state="running"):
                            await journal.start(record.id)
                        scribe.tell(event)

    async def cancel(self, record: JobRecord) -> None:
        pass  # closing the connection has done it

    async def _told(
        self,
        model: str,
        call: Call[Event],
        draft: ResultBuilder[Event],
        seconds: float,
        headers: dict[str, str],
        *,
        patient: bool,
    ) -> AsyncGenerator[LiveEvent]:
        async with self._upstream.open(model, call, headers, seconds, patient=patient) as exchange:
            yield StatusEvent(state="queued")
            running = False
            async for event in exchange.events():
                if not running:
                    running = True
                    yield StatusEvent(state="running")
                for told in draft.add(event):
                    yield told
        yield draft.result()


class _JobLogWriter:
    """Writes events into a job's log. What comes while others are being written goes with the next ones."""

    def __init__(self, job: str, journal: JobJournal) -> None:
        self._job = job
        self._journal = journal
        self._events: list[LiveEvent] = []
        self._writing: asyncio.Task[None] | None = None

    def tell(self, event: LiveEvent) -> None:
        self._events.append(event)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Everything; raises what went wrong with it."""
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
