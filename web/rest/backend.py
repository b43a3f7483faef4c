"""The REST backend: asks model servers directly, at their OpenAI routes, always for a stream."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from contract import PictureResultEvent, PreviewEvent, ProblemError, ResultEvent, StatusEvent
from contract.events import LiveEvent
from contract.problems import renamed
from contract.stored import request_of
from web import metrics
from web.client.call import Call, Event
from web.client.failures import ServerGoneError
from web.jobs.picture_memory import DEFAULT_PIXELS, LARGER_PIXELS, picture_bytes, sent_bytes
from web.readiness.model_readiness import FIRST_STATUS_SECONDS
from web.readiness.waiting_statuses import PASSED_ON, with_waiting_statuses
from web.rest.picture_call import picture_call
from web.rest.picture_result import PictureResultBuilder
from web.rest.rest_request import RestRequest
from web.rest.result_builder import ResultBuilder
from web.rest.resumption import Attempts, Delivered
from web.rest.telemetry.observation import observed, watched
from web.rest.text_call import text_call
from web.rest.text_result import TextResultBuilder
from wire.telemetry.generation import GenerationTelemetry

if TYPE_CHECKING:  # see web.rest.upstream
    from collections.abc import Mapping

    from web.jobs.journal import JobJournal
    from web.jobs.picture_memory import PictureMemory
    from web.jobs.record import JobRecord
    from web.rest.upstream import Upstream
    from web.setting_values import ServedModel

log = logging.getLogger(__name__)


class RestBackend:
    """See the module."""

    def __init__(self, models: Mapping[str, ServedModel], upstream: Upstream, memory: PictureMemory) -> None:
        self._models = models
        self._upstream = upstream
        self._memory = memory
        self._default_pixels = dict.fromkeys(models, DEFAULT_PIXELS)

    def check_wait(self, model: str, seconds: float) -> None:
        self._upstream.check_wait(model, seconds)

    async def events(self, rest_request: RestRequest) -> AsyncGenerator[LiveEvent]:
        """Statuses, tokens or progress and previews, and the result. Closing the generator cancels the generation, and
        says that its pictures are no longer in memory.

        OVERLOADED where there is no room for them; the model server is not asked then. Where the model server dies,
        another answer to the same request goes on where this one was: see web.rest.resumption. Whatever else goes wrong
        is raised as a ProblemError.
        """
        model, request = rest_request.model, rest_request.request
        pictures = request.n or 1 if self._models[model].kind == "image" else 0
        # Of a picture that is sent in, the model takes the size, up to twice its default.
        pixels = self._default_pixels[model] * (1 if request.image is None else LARGER_PIXELS)
        size = pictures * picture_bytes(request, pixels) + sent_bytes(request)
        async with self._memory.held(size), aclosing(self._attempts(rest_request)) as events:
            async for event in events:
                if isinstance(event, PictureResultEvent) and request.size is None and request.image is None:
                    self._default_pixels[model] = max(picture.width * picture.height for picture in event.images)
                yield event

    async def _attempts(self, rest_request: RestRequest) -> AsyncGenerator[LiveEvent]:
        """The events, over all answers."""
        attempts = Attempts(rest_request.seconds, of_job=rest_request.of_job)
        delivered = Delivered(live=rest_request.live)
        readiness = self._upstream.readiness(rest_request.model)
        builder, call = self._asked(rest_request)
        answer = self._answer(rest_request, call, builder, attempts, delivered)
        events = answer
        while True:
            try:
                async with aclosing(answer), aclosing(events):
                    async for event in events:
                        yield event
                return
            except ServerGoneError as error:
                delivered.again(error, builder.fingerprint)
                pause = attempts.pause(error)
                rest_request.telemetry.enter("retry")
                if not rest_request.live:  # its client has none of what came
                    rest_request.telemetry.first_token_at = None
                metrics.RETRIES.labels(rest_request.model).inc()
                log.info("%s is asked again in %.1f s, generation %s", rest_request.model, pause, rest_request.id)
                builder.again()
                answer = self._answer(rest_request, call, builder, attempts, delivered, pause)
                events = with_waiting_statuses(readiness, answer, ran=True)
            except ProblemError as error:
                raise renamed(error, call.names) from None

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        """Generate a job to its end; a ProblemError when there is no result."""
        now = await journal.now()
        request = request_of(record.request)
        arrived = time.perf_counter() - (now - record.created)
        telemetry = GenerationTelemetry(
            record.model, arrived, "earlier_attempts" if record.tried_before else "job_queue"
        )
        rest_request = RestRequest(
            request=request,
            model=record.model,
            id=record.id,
            arrived=arrived,
            seconds=max(record.deadline - now, 0),
            headers=record.headers,
            caller=record.caller,
            live=True,
            telemetry=telemetry,
            own_limit=record.own_limit,
            of_job=True,
        )
        with observed(telemetry, request, record.kind):
            await self._write(rest_request, record, journal)

    async def _write(self, rest_request: RestRequest, record: JobRecord, journal: JobJournal) -> None:
        """Generate, and write what comes into the journal."""
        events = self.events(rest_request)
        running = False
        async with aclosing(events), aclosing(_JobLogWriter(record, journal)) as writer:
            async for event in events:
                match event:
                    case StatusEvent(state="pending"):  # not written: up to 73ec94b, pages take it for running
                        journal.passed_on(record.id)
                    case StatusEvent(state="queued"):  # in the log of one that ran, it says that all comes anew
                        journal.heard_of(record.id)
                        if not running:
                            writer.append_later(event)
                    case ResultEvent() | PictureResultEvent():
                        await writer.flush()
                        # Replicas of commit 73ec94b read stored results strictly, and do not know it.
                        await journal.complete(record, event.model_copy(update={"system_fingerprint": None}))
                    case _:
                        if isinstance(event, StatusEvent) and event.state == "running" and not running:
                            running = True
                            await journal.until_stored(record, partial(_start, record, journal))
                        writer.append(event)

    async def cancel(self, record: JobRecord) -> None:
        """Nothing is left to do: closing the connection has cancelled it."""

    async def _answer(
        self,
        rest_request: RestRequest,
        call: Call[Event],
        builder: ResultBuilder[Event],
        attempts: Attempts,
        delivered: Delivered,
        pause: float = 0.0,
    ) -> AsyncGenerator[LiveEvent]:
        """The events of one attempt, after a pause."""
        if pause:
            await asyncio.sleep(pause)
        telemetry = rest_request.telemetry
        telemetry.enter("connect")
        yield PASSED_ON
        async with self._upstream.open(replace(rest_request, seconds=attempts.seconds), call) as exchange:
            telemetry.enter("queue")
            yield StatusEvent(state="queued")
            running = False
            async for event in exchange.events():
                if not running:
                    running = True
                    telemetry.enter("prefill")
                    attempts.runs()
                    yield StatusEvent(state="running", resumed=attempts.resumed)
                for live_event in builder.add(event):
                    watched(telemetry, live_event)
                    new = delivered.new(live_event, builder.fingerprint)
                    if new is not None:
                        yield new
        try:
            result = builder.result()
        except ServerGoneError as error:
            if exchange.done:  # it was not cut off: its server has nothing more to say
                raise ProblemError(error.kind, str(error)) from None
            raise
        watched(telemetry, result)
        if delivered.new(result, builder.fingerprint):
            yield result

    def _asked(self, rest_request: RestRequest) -> tuple[ResultBuilder[Any], Call[Any]]:
        """What the model server is asked, with a seed in any case, and who makes a result of its answer."""
        served, request = self._models[rest_request.model], rest_request.request
        if request.seed is None:
            request = request.model_copy(update={"seed": secrets.randbits(32)})
        model = served.upstream_model or rest_request.model
        if served.kind == "image":
            call = picture_call(model, request, previews=rest_request.live)
            return PictureResultBuilder(served.address, rest_request), call
        return TextResultBuilder(served.address, rest_request), text_call(model, request)


async def _start(record: JobRecord, journal: JobJournal) -> None:
    await journal.start(record.id)


class _JobLogWriter:
    """Writes events into a job's log. Those that come during a write go together with the next one."""

    def __init__(self, record: JobRecord, journal: JobJournal) -> None:
        self._record = record
        self._journal = journal
        self._events: list[LiveEvent] = []
        self._writing: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None

    def append_later(self, event: LiveEvent) -> None:
        """In FIRST_STATUS_SECONDS, unless something else is appended by then."""
        self._later = asyncio.get_running_loop().call_later(FIRST_STATUS_SECONDS, self.append, event)

    def append(self, event: LiveEvent) -> None:
        """Raises what an earlier write went wrong with."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._events.append(event)
        if self._writing is None or self._writing.done():
            if self._writing is not None:
                self._writing.result()
            self._writing = asyncio.create_task(self._write())

    async def flush(self) -> None:
        """Wait until everything is written; raises what went wrong."""
        if self._later is not None:
            self._later.cancel()
        if self._writing is not None:
            await self._writing

    async def aclose(self) -> None:
        """Write no more."""
        if self._later is not None:
            self._later.cancel()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})

    async def _write(self) -> None:
        while self._events:
            events, self._events = self._events, []
            await self._journal.until_stored(self._record, partial(self._append, events))

    async def _append(self, events: list[LiveEvent]) -> None:
        try:
            await self._journal.append(self._record.id, events)
        except ProblemError:
            # The store may be full, and a preview is worth little once it is late.
            events[:] = [event for event in events if not isinstance(event, PreviewEvent)]
            raise
