"""Pictures that are asked for by an event."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from contract import PictureResult, Problem
from contract.cloudevents import ACCEPTED, CANCELLED, COMPLETED, FAILED, PROGRESS, REQUESTED, CloudEvent
from predictor.events.event_sink import EventSink
from predictor.events.progress import ProgressPublisher
from predictor.events.reply_builder import ReplyBuilder
from predictor.events.subscriber import EventSubscriber
from tests.support.engine_cores import held
from tests.support.waiting import eventually
from wire.artifacts import Artifacts
from wire.cloudevents import read_events, write_event

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/painter:predict"


@pytest.fixture
def client(painter_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return painter_client


def requested(order: dict[str, Any], **changes: Any) -> CloudEvent:
    fields = {"id": "1", "source": "/test", "type": REQUESTED, "datacontenttype": "application/json"}
    return CloudEvent(**fields | changes, data=json.dumps(order).encode())


async def send(client: httpx2.AsyncClient, event: CloudEvent, path: str = "/") -> CloudEvent:
    """The reply."""
    headers, content = write_event(event)
    answer = await client.post(path, headers=headers, content=content)
    assert answer.status_code == 200, answer.text
    [reply] = read_events(answer.headers, answer.content).events
    return reply


def result(reply: CloudEvent) -> PictureResult:
    assert reply.type == COMPLETED, reply.data
    return PictureResult.model_validate_json(reply.data or b"")


def opened(data: str) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("path", ["/", PREDICT])
async def test_a_request_is_answered_with_its_pictures(client: httpx2.AsyncClient, apart: Any, path: str) -> None:
    order = {"prompt": "a cat", "seed": 3, "n": 2, "kind": "image", "previews": 2, "stream": True}

    made = result(await send(client, requested(order, subject="job-1"), path))

    assert (made.id, made.model, made.steps, made.understood) == ("job-1", "painter", 4, None)
    assert [(one.seed, one.media_type, one.width, one.height) for one in made.images] == [
        (3, "image/png", 32, 32),
        (4, "image/png", 32, 32),
    ]
    assert opened(made.images[0].data).text["prompt"] == "a cat"
    assert made.timing.queue_s is not None
    assert 0 <= made.timing.queue_s < made.timing.total_s
    predicted = await client.post(PREDICT, json={"instances": [{"prompt": "a cat", "seed": 4}]})
    [image] = predicted.json()["predictions"][0]["images"]
    assert apart(opened(made.images[1].data), opened(image["data"])) <= 1


async def test_pictures_have_the_form_that_is_asked_for(client: httpx2.AsyncClient) -> None:
    order = {"prompt": "a cat", "format": "webp", "size": "16x32", "steps": 2}

    made = result(await send(client, requested(order)))

    [image] = made.images
    assert (image.media_type, image.width, image.height, made.steps) == ("image/webp", 16, 32, 2)
    assert opened(image.data).format == "WEBP"


@pytest.mark.parametrize(
    ("order", "field"),
    [
        ({"kind": "text"}, "kind"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"stop": ["a"]}, "stop"),
        ({"size": "33x33"}, "size"),
    ],
)
async def test_what_a_painter_does_not_do_fails_for_good(
    client: httpx2.AsyncClient, order: dict[str, Any], field: str
) -> None:
    reply = await send(client, requested({"prompt": "a cat"} | order))

    assert reply.type == FAILED
    problem = Problem.model_validate_json(reply.data or b"")
    assert [error.field for error in problem.errors or ()] == [field]


async def test_large_pictures_go_to_the_artifacts(painter: Any, serve: Any, tmp_path: Path) -> None:
    artifacts = Artifacts(f"file://{tmp_path}")
    client = await serve(painter, lambda model: EventSubscriber(model, ReplyBuilder("/painter", 2_000, artifacts)))

    reply = await send(client, requested({"prompt": "a cat", "n": 2}))

    assert (reply.type, reply.data) == (COMPLETED, None)
    data = await artifacts.get(reply.extensions["dataref"], 1_000_000)
    assert [opened(one.data).size for one in PictureResult.model_validate_json(data).images] == [(32, 32)] * 2


async def test_steps_are_announced(painter: Any, serve: Any) -> None:
    sent: list[CloudEvent] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The simplest of sinks: one request after the other."""
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().splitlines()[1:-1]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            sent.extend(read_events(headers, await reader.readexactly(int(headers["content-length"]))).events)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    sink = await asyncio.start_server(take, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{sink.sockets[0].getsockname()[1]}/"
    client = await serve(
        painter,
        lambda model: EventSubscriber(
            model,
            publisher=ProgressPublisher(EventSink(url), "/painter", model.name, model.kind, interval_seconds=0.0),
        ),
    )

    result(await send(client, requested({"prompt": "a cat", "n": 2, "steps": 3}, subject="job-1")))

    await eventually(lambda: len([event for event in sent if event.subject]) == 4)
    told = [(event.type, json.loads(event.data or b"")) for event in sent if event.subject == "job-1"]
    assert told == [
        (ACCEPTED, {"model": "painter", "kind": "image"}),
        *((PROGRESS, {"model": "painter", "state": "running", "step": step, "of": 3}) for step in (1, 2, 3)),
    ]
    sink.close()


async def test_cancelling_frees_the_slots(painter: Any, client: httpx2.AsyncClient) -> None:
    with held(painter.core, after=1):
        running = asyncio.create_task(send(client, requested({"prompt": "a cat", "n": 2}, subject="job-1")))
        await eventually(lambda: painter.core.admission.running == 2)
        headers, content = write_event(CloudEvent(id="2", source="/test", type=CANCELLED, subject="job-1"))
        assert (await client.post("/", headers=headers, content=content)).status_code == 204
        reply = await running

    assert reply.type == FAILED
    assert json.loads(reply.data or b"")["type"] == "urn:shangcai:problem:cancelled"
    await eventually(lambda: painter.core.admission.running == 0)
