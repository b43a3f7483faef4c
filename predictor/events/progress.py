"""Progress events: a request is accepted, how far its generation is, which phase the start is in."""

from __future__ import annotations

import asyncio
import time
import uuid

from contract.cloudevents import ACCEPTED, PROGRESS, Acceptance, CloudEvent, GenerationProgress, now
from contract.request import Kind
from predictor.engine.events import EngineEvent, EventListener, Progress, Reasoning, Started, Token
from predictor.events.event_sink import EventSink
from predictor.events.reply_builder import event_about
from predictor.loading.startup import Startup

INTERVAL_SECONDS = 0.5
"""Least time between two events about one generation, or about the start."""


class ProgressPublisher:
    """Publishes the progress of `model` to a sink, at most once in `interval_seconds` for each generation."""

    def __init__(
        self, sink: EventSink, source: str, model: str, kind: Kind, *, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._sink = sink
        self._source = source
        self._model = model
        self._kind: Kind = kind
        self._interval_seconds = interval_seconds
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, startup: Startup) -> None:
        """Begin to send, and publish the phases of the start until it has ended."""
        self._tasks = [asyncio.create_task(self._sink.send()), asyncio.create_task(self._publish_loading(startup))]

    async def close(self) -> None:
        """Stop at once: events that still wait are dropped."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def listener(self, request: CloudEvent, pictures: int) -> EventListener:
        """A listener that publishes the engine's events about one request, for so many `pictures` (1 for a text)."""
        return _GenerationProgress(self, request, pictures, self._interval_seconds).publish

    def publish_accepted(self, request: CloudEvent) -> None:
        """That the generation has begun."""
        data = Acceptance(model=self._model, kind=self._kind)
        self._sink.put(event_about(request, self._source, uuid.uuid4().hex, ACCEPTED, data))

    def publish_running(
        self,
        request: CloudEvent,
        *,
        text: str | None = None,
        reasoning: str | None = None,
        step: int | None = None,
        of: int | None = None,
    ) -> None:
        """The text so far, and the reasoning before it; or the denoising step of so many."""
        data = GenerationProgress(
            model=self._model, state="running", text=text, reasoning_content=reasoning, step=step, of=of
        )
        self._sink.put(event_about(request, self._source, uuid.uuid4().hex, PROGRESS, data))

    async def _publish_loading(self, startup: Startup) -> None:
        """Each phase that is seen; "ready" or "failed" is the last."""
        published = ""
        while published not in ("ready", "failed"):
            if startup.phase != published:
                published = startup.phase
                seconds = round(startup.seconds, 3)
                data = GenerationProgress(model=self._model, state="loading", phase=published, seconds=seconds)
                event = CloudEvent(id=uuid.uuid4().hex, source=self._source, type=PROGRESS, time=now())
                self._sink.put(event.with_data(data))
            await asyncio.sleep(self._interval_seconds)


class _GenerationProgress:
    """Publishes the beginning of one generation, and then its text or its denoising step once in a while."""

    def __init__(
        self, publisher: ProgressPublisher, request: CloudEvent, pictures: int, interval_seconds: float
    ) -> None:
        self._publisher = publisher
        self._request = request
        self._pictures = pictures
        self._interval_seconds = interval_seconds
        self._published_at: float | None = None
        self._published_step = 0
        self._pieces: list[str] = []
        self._reasoning: list[str] = []
        self._steps: dict[int, int] = {}

    def publish(self, event: EngineEvent) -> None:
        match event:
            case Started() if self._published_at is None:
                self._published_at = time.monotonic()
                self._publisher.publish_accepted(self._request)
            case Token() | Reasoning():
                (self._pieces if isinstance(event, Token) else self._reasoning).append(event.text)
                if self._due():
                    reasoning = "".join(self._reasoning) or None
                    self._publisher.publish_running(self._request, text="".join(self._pieces), reasoning=reasoning)
            case Progress():
                self._steps[event.picture] = event.step
                # The slowest of several pictures counts, as in the events of a stream.
                step = min(self._steps.values()) if len(self._steps) == self._pictures else 0
                if step > self._published_step and self._due():
                    self._published_step = step
                    self._publisher.publish_running(self._request, step=step, of=event.of)

    def _due(self) -> bool:
        now = time.monotonic()
        if self._published_at is not None and now - self._published_at < self._interval_seconds:
            return False
        self._published_at = now
        return True
