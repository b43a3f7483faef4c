"""Events about what is going on, for whoever subscribes: that a request has been begun, how far it has come, and what
loading is busy with. Nobody waits for them, and none of them is sent twice."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from contract.cloudevents import ACCEPTED, PROGRESS, Acceptance, CloudEvent, GenerationProgress, now
from contract.request import Kind
from predictor.engine.events import EngineEvent, EventListener, Progress, Started, Token
from predictor.events.reply_builder import about
from predictor.loading.startup import Startup
from wire.cloudevents import write_event

if TYPE_CHECKING:  # only few deployments need it
    import httpx

log = logging.getLogger(__name__)

PACE_SECONDS = 0.5
"""Least time between what is told of one run, or of loading."""

QUEUE = 256
"""Most events that wait to be sent; one more takes the place of the oldest."""

SEND_SECONDS = 2.0
"""Longest that sending one may take."""


class ProgressPublisher:
    """Sends events to `sink`, with `extensions` added to each."""

    def __init__(
        self,
        sink: str,
        source: str,
        model: str,
        kind: Kind,
        *,
        extensions: Mapping[str, str] | None = None,
        pace_seconds: float = PACE_SECONDS,
        queue: int = QUEUE,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self._sink = sink
        self._source = source
        self._model = model
        self._kind: Kind = kind
        self._extensions = dict(extensions or {})
        self._pace_seconds = pace_seconds
        self._send_seconds = send_seconds
        self._queue: asyncio.Queue[CloudEvent] = asyncio.Queue(queue)
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = False

    def start(self, startup: Startup) -> None:
        """Begin to send, and to tell of loading until it has ended."""
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._tell_loading(startup))]

    async def close(self) -> None:
        """What has not been sent never will be."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def narrate(self, request: CloudEvent, pictures: int) -> EventListener:
        """Takes what the engine says about a request, and tells it on."""
        return _Narration(self, request, pictures, self._pace_seconds).note

    def accepted(self, request: CloudEvent) -> None:
        data = Acceptance(model=self._model, kind=self._kind)
        self._put(about(request, self._source, uuid.uuid4().hex, ACCEPTED, data))

    def running(
        self, request: CloudEvent, *, text: str | None = None, step: int | None = None, of: int | None = None
    ) -> None:
        data = GenerationProgress(model=self._model, state="running", text=text, step=step, of=of)
        self._put(about(request, self._source, uuid.uuid4().hex, PROGRESS, data))

    async def _tell_loading(self, startup: Startup) -> None:
        """Every phase that is seen, "ready" or "failed" as the last."""
        told = ""
        while told not in ("ready", "failed"):
            if startup.phase != told:
                told = startup.phase
                seconds = round(startup.seconds, 3)
                data = GenerationProgress(model=self._model, state="loading", phase=told, seconds=seconds)
                event = CloudEvent(id=uuid.uuid4().hex, source=self._source, type=PROGRESS, time=now())
                self._put(event.with_data(data))
            await asyncio.sleep(self._pace_seconds)

    def _put(self, event: CloudEvent) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event.model_copy(update={"extensions": event.extensions | self._extensions}))

    async def _send(self) -> None:
        import httpx

        async with httpx.AsyncClient(timeout=self._send_seconds) as client:
            while True:
                event = await self._queue.get()
                failure = await self._post(client, event)
                if failure and not self._failing:
                    log.warning("%s does not take what is announced: %s", self._sink, failure)
                self._failing = failure is not None

    async def _post(self, client: httpx.AsyncClient, event: CloudEvent) -> str | None:
        """Send one; why it was not taken."""
        headers, body = write_event(event)
        try:
            async with asyncio.timeout(self._send_seconds):  # httpx only bounds each of its steps
                answer = await client.post(self._sink, headers=headers, content=body)
        except Exception as error:  # nothing that goes wrong here may be in anybody's way
            return f"{type(error).__name__}: {error}"
        return None if answer.is_success else f"status {answer.status_code}"


class _Narration:
    """What is told of one run: that it has begun, and now and then the text or the step that it has come to."""

    def __init__(self, announcer: ProgressPublisher, request: CloudEvent, pictures: int, pace_seconds: float) -> None:
        self._announcer = announcer
        self._request = request
        self._pictures = pictures
        self._pace_seconds = pace_seconds
        self._told_at: float | None = None
        self._told_step = 0
        self._pieces: list[str] = []
        self._steps: dict[int, int] = {}

    def note(self, event: EngineEvent) -> None:
        match event:
            case Started() if self._told_at is None:
                self._told_at = time.monotonic()
                self._announcer.accepted(self._request)
            case Token():
                self._pieces.append(event.text)
                if self._due():
                    self._announcer.running(self._request, text="".join(self._pieces))
            case Progress():
                self._steps[event.picture] = event.step
                # Of several pictures the slowest one's, as for those who watch a stream.
                step = min(self._steps.values()) if len(self._steps) == self._pictures else 0
                if step > self._told_step and self._due():
                    self._told_step = step
                    self._announcer.running(self._request, step=step, of=event.of)

    def _due(self) -> bool:
        now = time.monotonic()
        if self._told_at is not None and now - self._told_at < self._pace_seconds:
            return False
        self._told_at = now
        return True
