"""Progress events: what they say, how often, and that no generation waits for the sink."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract.cloudevents import ACCEPTED, COMPLETED, PROGRESS, REQUESTED, CloudEvent
from predictor.engine.events import Progress, Reasoning, Started, Token
from predictor.events.event_sink import QUEUE, SEND_SECONDS, EventSink
from predictor.events.progress import INTERVAL_SECONDS, ProgressPublisher
from predictor.events.subscriber import EventSubscriber
from predictor.loading.startup import Startup
from tests.support.waiting import eventually
from wire.cloudevents import read_events, write_event

DEADLINE = 60.0
SOURCE = "urn:shangcai:model:poet"


@dataclass
class Sink:
    """Receives events, once the gate is open, and answers with a status."""

    url: str = ""
    status: int = 202
    requests: int = 0
    events: list[CloudEvent] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: Request) -> Response:
        self.requests += 1
        delivery = read_events(request.headers, await request.body())
        await self.gate.wait()
        assert delivery.mode == "binary"
        self.events += delivery.events
        return Response(status_code=self.status)

    @property
    def generations(self) -> list[tuple[str, Any]]:
        """Type and data of the events about generations."""
        return [(event.type, json.loads(event.data or b"")) for event in self.events if event.subject]

    @property
    def loading(self) -> list[Any]:
        """Data of the events about the start."""
        return [json.loads(event.data or b"") for event in self.events if not event.subject]

    @property
    def phases(self) -> list[str]:
        return [data["phase"] for data in self.loading]


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Under uvicorn, in this loop. Its gate is open."""
    sink = Sink()
    sink.gate.set()
    listener = socket.create_server(("127.0.0.1", 0))
    sink.url = f"http://127.0.0.1:{listener.getsockname()[1]}/broker"
    app = Starlette(routes=[Route("/broker", sink.receive, methods=["POST"])])
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    yield sink
    sink.gate.set()
    server.should_exit = True
    await asyncio.wait_for(serving, DEADLINE)


@pytest.fixture
async def publisher_to(sink: Sink) -> AsyncIterator[Callable[..., ProgressPublisher]]:
    """Makes publishers to the sink that are closed after the test; the start has ended."""
    made: list[ProgressPublisher] = []

    def make(interval_seconds: float = 0.0, url: str = "", **settings: Any) -> ProgressPublisher:
        startup = Startup()
        startup.succeed()
        made.append(publisher(url or sink.url, interval_seconds, **settings))
        made[-1].start(startup)
        return made[-1]

    yield make
    for each in made:
        await each.close()


def publisher(url: str, interval_seconds: float, **settings: Any) -> ProgressPublisher:
    return ProgressPublisher(EventSink(url, **settings), SOURCE, "poet", "text", interval_seconds=interval_seconds)


def request(**changes: Any) -> CloudEvent:
    return CloudEvent(**{"id": "1", "source": "/test", "type": REQUESTED} | changes)


def test_the_defaults_are_the_named_ones() -> None:
    assert (INTERVAL_SECONDS, QUEUE, SEND_SECONDS) == (0.5, 256, 2)


# Generations


async def test_reasoning_is_published_apart_from_the_text(
    publisher_to: Callable[..., ProgressPublisher], sink: Sink
) -> None:
    listener = publisher_to().listener(request(), 1)

    for event in (Started(0.1), Reasoning("hm"), Token("春")):
        listener(event)

    await eventually(lambda: len(sink.events) == 4)
    assert [data for _, data in sink.generations[1:]] == [
        {"model": "poet", "state": "running", "text": "", "reasoning_content": "hm"},
        {"model": "poet", "state": "running", "text": "春", "reasoning_content": "hm"},
    ]


async def test_the_text_so_far_is_published(publisher_to: Callable[..., ProgressPublisher], sink: Sink) -> None:
    extensions = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "other": "x"}
    listener = publisher_to(extensions={"cluster": "月"}).listener(request(subject="job-1", extensions=extensions), 1)

    for event in (Started(0.1), Token("春"), Token("雨")):
        listener(event)

    await eventually(lambda: len(sink.events) == 4)
    assert sink.generations == [
        (ACCEPTED, {"model": "poet", "kind": "text"}),
        (PROGRESS, {"model": "poet", "state": "running", "text": "春"}),
        (PROGRESS, {"model": "poet", "state": "running", "text": "春雨"}),
    ]
    assert len({event.id for event in sink.events}) == 4
    for sent in (sent for sent in sink.events if sent.subject):
        assert (sent.source, sent.subject) == (SOURCE, "job-1")
        assert sent.time is not None
        carried = {"traceparent": extensions["traceparent"], "causationid": "1"}
        assert sent.extensions == carried | {"cluster": "月"}


async def test_the_slowest_of_several_pictures_is_published(
    publisher_to: Callable[..., ProgressPublisher], sink: Sink
) -> None:
    listener = publisher_to().listener(request(), 2)

    for event in (Started(0.1), Progress(0, 1, 4), Progress(0, 2, 4), Started(0.2), Progress(1, 1, 4)):
        listener(event)
    for event in (Progress(1, 2, 4), Progress(1, 3, 4), Progress(0, 3, 4)):
        listener(event)

    await eventually(lambda: len(sink.generations) == 4)
    steps = [{"model": "poet", "state": "running", "step": step, "of": 4} for step in (1, 2, 3)]
    assert sink.generations == [(ACCEPTED, {"model": "poet", "kind": "text"}), *((PROGRESS, step) for step in steps)]


async def test_each_generation_has_an_interval_of_its_own(
    publisher_to: Callable[..., ProgressPublisher], sink: Sink
) -> None:
    progress = publisher_to(interval_seconds=1_000.0)
    one, other = progress.listener(request(id="1"), 1), progress.listener(request(id="2"), 1)

    for listener in (one, other):
        listener(Started(0.1))
        for _ in range(100):
            listener(Token("x"))

    await eventually(lambda: len(sink.events) == 3)
    assert [kind for kind, _ in sink.generations] == [ACCEPTED, ACCEPTED]


# Loading


async def test_each_phase_of_the_start_is_published_without_a_subject(sink: Sink) -> None:
    startup = Startup()
    progress = publisher(sink.url, 0.001)
    progress.start(startup)

    for phase in ("importing torch", "warming up"):
        await eventually(lambda: sink.events)
        seen = len(sink.events)
        startup.enter(phase)
        await eventually(lambda: len(sink.events) > seen)  # noqa: B023  awaited in its turn
    startup.succeed()
    await eventually(lambda: len(sink.events) == 4)
    await progress.close()

    assert sink.phases == ["starting", "importing torch", "warming up", "ready"]
    for event, data in zip(sink.events, sink.loading, strict=True):
        assert (event.type, event.subject, event.extensions) == (PROGRESS, None, {})
        assert (data["model"], data["state"]) == ("poet", "loading")
        assert data["seconds"] >= 0


async def test_a_failure_to_load_is_the_last_phase(sink: Sink) -> None:
    startup = Startup()
    startup.fail("no weights")
    progress = publisher(sink.url, INTERVAL_SECONDS)

    progress.start(startup)

    await eventually(lambda: sink.events)
    assert sink.phases == ["failed"]
    await progress.close()


# The sink is slow or gone


async def test_when_the_sink_is_slow_the_oldest_are_dropped(
    publisher_to: Callable[..., ProgressPublisher], sink: Sink
) -> None:
    sink.gate.clear()
    progress = publisher_to(queue=3)
    await eventually(lambda: sink.requests == 1)  # about the start, which is being sent
    listener = progress.listener(request(), 1)
    listener(Started(0.1))
    for piece in "abcde":
        listener(Token(piece))

    sink.gate.set()

    await eventually(lambda: len(sink.events) == 4)
    assert [data["text"] for _, data in sink.generations] == ["abc", "abcd", "abcde"]


async def test_a_sink_that_does_not_answer_is_not_waited_for(
    publisher_to: Callable[..., ProgressPublisher], sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.gate.clear()
    publisher_to(send_seconds=0.05)

    await eventually(lambda: caplog.records)

    assert "does not take what is announced" in caplog.messages[0]


async def test_only_the_first_of_several_failures_is_logged(
    publisher_to: Callable[..., ProgressPublisher], sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    sink.status = 503
    listener = publisher_to().listener(request(), 1)
    for event in (Started(0.1), Token("a"), Token("b")):
        listener(event)
    await eventually(lambda: sink.requests == 4)
    sink.status = 202
    listener(Token("c"))
    await eventually(lambda: sink.requests == 5)
    assert caplog.messages == [f"{sink.url} does not take what is announced: status 503"]

    sink.status = 404
    listener(Token("d"))
    await eventually(lambda: len(caplog.messages) == 2)


async def test_a_missing_sink_is_logged(
    publisher_to: Callable[..., ProgressPublisher], caplog: pytest.LogCaptureFixture
) -> None:
    listener = publisher_to(url="http://127.0.0.1:1/").listener(request(), 1)
    listener(Started(0.1))

    await eventually(lambda: caplog.records)

    assert "ConnectError" in caplog.messages[0]


# In a server


async def test_a_server_publishes_its_start_and_its_generations(start_server: Any, engine: Any, sink: Sink) -> None:
    def subscriber(model: Any) -> EventSubscriber:
        return EventSubscriber(model, publisher=publisher(sink.url, 0.001))

    served = await start_server(engine, subscriber, wait=False)
    await eventually(lambda: "pretending to load" in sink.phases)
    engine.load_gate.set()
    await eventually(lambda: "ready" in sink.phases)
    gate = asyncio.Event()
    engine.enqueue(gate, "春", gate, "雨")
    headers, content = write_event(
        request(subject="job-1", datacontenttype="application/json", data=b'{"prompt": "a"}')
    )

    async with httpx2.AsyncClient(base_url=served.url, timeout=DEADLINE) as client:
        delivery = asyncio.create_task(client.post("/", headers=headers, content=content))
        await eventually(lambda: sink.generations)
        gate.set()
        answer = await delivery

    assert answer.headers["ce-type"] == COMPLETED
    assert sink.generations[0] == (ACCEPTED, {"model": "poet", "kind": "text"})
    assert {(event.subject, event.source) for event in sink.events} == {(None, SOURCE), ("job-1", SOURCE)}
    assert {kind for kind, _ in sink.generations} <= {ACCEPTED, PROGRESS}
