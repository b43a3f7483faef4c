"""Orders that go out as events, and what comes back about them."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from contract import (
    Picture,
    PictureResult,
    PictureTiming,
    Problem,
    ProblemError,
    TextResult,
    Timing,
    Usage,
    problems,
)
from contract.cloudevents import (
    ACCEPTED,
    CANCELLED,
    COMPLETED,
    DATAREF,
    ERROR_CODE,
    ERROR_DATA,
    ERROR_DESTINATION,
    EXPIRY,
    FAILED,
    MODEL,
    PROGRESS,
    REQUESTED,
    Acceptance,
    CloudEvent,
    GenerationProgress,
)
from web.app import create_app
from web.events import backend
from web.jobs import worker
from web.settings import ServedModel, Settings
from wire.cloudevents import Mode, read_events, write_batch, write_event

Events = Callable[[str], list[tuple[str, Any]]]
Slug = Callable[[httpx.Response], str]
Handler = Callable[[httpx.Request], httpx.Response]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx.Response]
Serve = Callable[[ASGIApp], Awaitable[str]]
Opened = Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]
Front = Callable[..., Awaitable[httpx.AsyncClient]]

LIMIT = 10.0
ASYNC = {"Prefer": "respond-async"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def poem(job: str | None, text: str = "春眠不觉晓") -> TextResult:
    return TextResult(
        id=job or "?",
        model="poet",
        text=text,
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=5),
        timing=Timing(queue_s=None, first_token_s=0.1, total_s=0.2),
    )


def painting(job: str | None, count: int = 1) -> PictureResult:
    data = base64.b64encode(b"a picture").decode()
    picture = Picture(data=data, media_type="image/png", seed=7, width=64, height=64)
    return PictureResult(
        id=job or "?", model="painter", images=[picture] * count, timing=PictureTiming(queue_s=None, total_s=0.2)
    )


def about(job: str | None, kind: str, data: Any = None, **extensions: str) -> CloudEvent:
    event = CloudEvent(id=f"{kind}-{job}", source="urn:test", type=kind, subject=job, extensions=extensions)
    return event if data is None else event.with_data(data)


def done(request: CloudEvent) -> CloudEvent:
    """The reply of a model that does what it is asked for."""
    kind = json.loads(request.data or b"")["model"]
    result = painting(request.subject) if kind == "painter" else poem(request.subject)
    return about(request.subject, COMPLETED, result)


class Predictor:
    """A sink that answers as `answer` says, and keeps the events that it was sent."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.proofs: list[str | None] = []
        self.answer: Callable[[CloudEvent], Awaitable[httpx.Response]] = self.taken

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        [event] = read_events({name.lower(): value for name, value in request.headers.items()}, request.content).events
        self.events.append(event)
        self.proofs.append(request.headers.get("authorization"))
        return await self.answer(event)

    async def taken(self, _event: CloudEvent) -> httpx.Response:
        """As a broker does."""
        return httpx.Response(202)

    def replies(self, mode: Mode = "binary") -> None:
        async def answer(event: CloudEvent) -> httpx.Response:
            if event.type != REQUESTED:
                return httpx.Response(204)
            headers, body = write_event(done(event), mode)
            return httpx.Response(200, headers=headers, content=body)

        self.answer = answer

    def of(self, kind: str) -> list[CloudEvent]:
        return [event for event in self.events if event.type == kind]


@pytest.fixture
def predictor() -> Predictor:
    return Predictor()


@pytest.fixture
def front(opened: Opened, predictor: Predictor) -> Front:
    """Starts a web that dispatches by events, and gives a client of it."""

    async def start(**settings: Any) -> httpx.AsyncClient:
        return await opened(app(predictor, **settings))

    return start


def app(predictor: Predictor, **settings: Any) -> ASGIApp:
    models = {"poet": {"kind": "text"}, "painter": {"kind": "image"}}
    settings = {"models": models, "dispatch": "EVENTS", "k_sink": "http://sink.test/default", **settings}
    return create_app(Settings(**settings), httpx.MockTransport(predictor))


async def until(holds: Callable[[], Any]) -> Any:
    async with asyncio.timeout(LIMIT):
        while not (found := holds()):
            await asyncio.sleep(0.01)
    return found


async def ask(client: httpx.AsyncClient, headers: dict[str, str] | None = None, **body: Any) -> str:
    answer = await client.post("/generate", json={"prompt": "春", **body}, headers={**ASYNC, **(headers or {})})
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


async def deliver(client: httpx.AsyncClient, event: CloudEvent, mode: Mode = "binary") -> httpx.Response:
    headers, body = write_event(event, mode)
    return await client.post("/events", headers=headers, content=body)


async def state(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get(f"/generations/{job}")).json()
    return document


async def ended(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while (document := await state(client, job))["state"] in ("queued", "running"):
            await asyncio.sleep(0.01)
    return document


# Out


async def test_what_a_request_says_of_itself(front: Front, predictor: Predictor) -> None:
    client = await front(k_ce_overrides='{"extensions": {"team": "poetry"}}', event_source="urn:me")
    job = await ask(client, {"traceparent": TRACE, "X-Request-Timeout": "60"}, max_tokens=5)
    [event] = await until(lambda: predictor.events)
    assert (event.id, event.subject, event.source, event.type) == (job, job, "urn:me", REQUESTED)
    expiry = event.extensions.pop(EXPIRY)
    assert event.extensions == {"team": "poetry", "traceparent": TRACE, MODEL: "poet"}
    assert expiry == (await state(client, job))["deadline_at"]
    assert datetime.fromisoformat(expiry).tzinfo is not None
    order = json.loads(event.data or b"")
    assert order.pop("seed") >= 0
    assert order == {"prompt": "春", "max_tokens": 5, "model": "poet"}


async def test_a_token_that_is_mounted_for_the_sink_is_shown_to_it(
    front: Front, predictor: Predictor, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    client = await front(k_token=token)
    await ask(client)
    await until(lambda: len(predictor.events) == 1)
    token.write_text("first\n")
    await ask(client)
    await until(lambda: len(predictor.events) == 2)
    token.write_text("renewed\n")
    await ask(client)
    await until(lambda: len(predictor.events) == 3)
    assert predictor.proofs == [None, "Bearer first", "Bearer renewed"]


@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
async def test_a_reply_in_the_answer(front: Front, predictor: Predictor, mode: Mode) -> None:
    predictor.replies(mode)
    answer = await (await front()).post("/generate", json={"prompt": "春"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春眠不觉晓")
    assert answer.headers["location"] == f"/generations/{answer.json()['id']}"


async def test_a_reply_that_comes_later(front: Front, predictor: Predictor) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json={"prompt": "春"}))
    [event] = await until(lambda: predictor.events)
    assert (await deliver(client, done(event), "structured")).status_code == 204
    assert (await waiting).json()["text"] == "春眠不觉晓"


async def test_a_reply_that_comes_before_the_broker_has_answered(front: Front, predictor: Predictor) -> None:
    delivered = asyncio.Event()

    async def slow(_event: CloudEvent) -> httpx.Response:
        await delivered.wait()
        return httpx.Response(202)

    predictor.answer = slow
    client = await front()
    job = await ask(client)
    [event] = await until(lambda: predictor.events)
    await deliver(client, done(event))
    assert (await state(client, job))["state"] == "completed"
    delivered.set()
    assert (await state(client, job))["state"] == "completed"
    assert len(predictor.events) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(404),
        httpx.Response(408),
        httpx.Response(409),
        httpx.Response(500),
        httpx.Response(503, headers={"Retry-After": "1"}),
        httpx.Response(429, headers={"Retry-After": "1"}),
    ],
    ids=lambda answer: str(answer.status_code),
)
async def test_what_may_pass_is_sent_again(
    front: Front, predictor: Predictor, refusal: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(worker, "MOST_RETRY_SECONDS", 0.01)
    answers = [refusal, httpx.Response(202)]

    async def answer(_event: CloudEvent) -> httpx.Response:
        return answers.pop(0)

    predictor.answer = answer
    client = await front()
    await ask(client)
    first, second = await until(lambda: len(predictor.events) == 2 and predictor.events)
    assert first.key == second.key, "so that nothing is generated twice"


async def test_what_the_sink_refuses_for_good_ends_the_job(front: Front, predictor: Predictor) -> None:
    async def answer(_event: CloudEvent) -> httpx.Response:
        return httpx.Response(400, json={"error": "no such thing"})

    predictor.answer = answer
    client = await front()
    document = await ended(client, await ask(client))
    assert document["state"] == "failed"
    assert "no such thing" in document["error"]["detail"]
    assert len(predictor.events) == 1


async def test_a_sink_that_is_not_there_yet_is_asked_again(
    front: Front, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_RETRY_SECONDS", 0.01)

    async def absent(_event: CloudEvent) -> httpx.Response:
        predictor.replies()
        raise httpx.ConnectError("nobody there")

    predictor.answer = absent
    answer = await (await front()).post("/generate", json={"prompt": "春"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春眠不觉晓")
    assert len(predictor.events) == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, headers={"Content-Type": "application/cloudevents+json"}, content=b"{"),
        httpx.Response(200, headers={"Content-Type": "application/cloudevents+xml"}, content=b"<x/>"),
        httpx.Response(200, headers={"ce-id": "1"}),
    ],
)
async def test_an_answer_that_is_no_event_is_not_the_clients_mistake(
    front: Front, predictor: Predictor, slug: Slug, answer: httpx.Response
) -> None:
    async def garble(_event: CloudEvent) -> httpx.Response:
        return answer

    predictor.answer = garble
    refused = await (await front()).post("/generate", json={"prompt": "春"})
    assert (refused.status_code, slug(refused)) == (502, "bad-upstream")
    assert len(predictor.events) == 1


async def test_an_answer_without_an_end_is_not_read_to_its_end(front: Front, predictor: Predictor, slug: Slug) -> None:
    async def endless(event: CloudEvent) -> httpx.Response:
        async def content() -> AsyncGenerator[bytes]:
            while True:
                yield b" " * 1_000_000

        headers, _ = write_event(done(event))
        return httpx.Response(200, headers=headers, content=content())

    predictor.answer = endless
    refused = await (await front()).post("/generate", json={"prompt": "春"})
    assert (refused.status_code, slug(refused)) == (502, "bad-upstream")


@pytest.mark.parametrize("answer", [httpx.Response(200, content=b"<html>"), httpx.Response(204), httpx.Response(202)])
async def test_an_answer_that_holds_no_event_says_that_it_is_on_its_way(
    front: Front, predictor: Predictor, answer: httpx.Response
) -> None:
    async def take(_event: CloudEvent) -> httpx.Response:
        return answer

    predictor.answer = take
    client = await front()
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    document = await state(client, job)
    assert document["state"] == "queued"
    assert (await deliver(client, done(request))).status_code == 204
    assert (await state(client, job))["state"] == "completed"


# What the client sees


@pytest.fixture(params=["rest", "events"])
async def either(
    request: pytest.FixtureRequest,
    opened: Opened,
    predictor: Predictor,
    painter: Handler,
    stream: Stream,
    sse_answer: Answer,
) -> httpx.AsyncClient:
    """A client of a web that dispatches in one way or the other."""

    def model_server(request: httpx.Request) -> httpx.Response:
        return painter(request) if request.url.host == "painter.test" else sse_answer(stream("春眠", "不觉晓"))

    models = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
    settings = Settings(models=models, dispatch=request.param, k_sink="http://sink.test")
    predictor.replies()
    transport = httpx.MockTransport(model_server if request.param == "rest" else predictor)
    return await opened(create_app(settings, transport))


async def test_a_text_is_the_same_either_way(either: httpx.AsyncClient) -> None:
    for headers in ({}, {"Prefer": "wait=10"}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "k"}):
        answer = await either.post("/generate", json={"prompt": "春"}, headers=headers)
        document = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert document.keys() == {"id", "model", "kind", "text", "finish_reason", "usage", "timing"}
        assert (document["text"], document["finish_reason"]) == ("春眠不觉晓", "stop")


async def test_a_picture_is_the_same_either_way(either: httpx.AsyncClient) -> None:
    order = {"prompt": "猫"}
    for headers in ({}, {"Prefer": "wait=10"}, {"Idempotency-Key": "k"}):
        answer = await either.post("/generate", json=order, headers={**headers, "Accept": "image/png"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content in (b"picture 0", b"a picture")
        assert {"etag", "x-seed", "x-model", "content-disposition"} <= answer.headers.keys()


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, ASYNC])
async def test_events_are_the_same_either_way(
    either: httpx.AsyncClient, events: Events, headers: dict[str, str]
) -> None:
    answer = await either.post("/generate", json={"prompt": "春", "stream": True}, headers=headers)
    found = events(answer.text)
    assert found[0] == ("status", {"state": "queued"})
    assert [name for name, _ in found].count("result") == 1
    name, result = found[-1]
    assert name == "result"
    assert "".join(data["text"] for name, data in found if name == "token") == result["text"] == "春眠不觉晓"


async def test_what_comes_later_is_the_same_either_way(either: httpx.AsyncClient, events: Events) -> None:
    job = await ask(either)
    document = await ended(either, job)
    assert (document["state"], document["result"]["text"]) == ("completed", "春眠不觉晓")
    told = events((await either.get(f"/generations/{job}", headers={"Accept": "text/event-stream"})).text)
    assert told[-1] == ("result", document["result"])


async def test_the_last_piece_of_a_text_is_told_although_no_progress_told_it(
    front: Front, predictor: Predictor, events: Events
) -> None:
    client = await front()
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    await deliver(client, about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠")))
    await deliver(client, done(request))
    told = events((await client.get(f"/generations/{job}", headers={"Accept": "text/event-stream"})).text)
    assert [data["text"] for name, data in told if name == "token"] == ["春眠", "不觉晓"]


async def test_a_picture_itself(front: Front, predictor: Predictor) -> None:
    predictor.replies()
    answer = await (await front()).post("/generate", json={"prompt": "猫"}, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/png", b"a picture")
    assert answer.headers["x-seed"] == "7"


async def test_events_of_a_generation(front: Front, predictor: Predictor, events: Events) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json={"prompt": "春", "stream": True}))
    [request] = await until(lambda: predictor.events)
    job = request.subject
    for told in (
        about(job, ACCEPTED, Acceptance(model="poet", kind="text")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠不觉")),
        about(None, PROGRESS, GenerationProgress(model="poet", state="loading", phase="ready")),
        done(request),
    ):
        assert (await deliver(client, told)).status_code == 204
    found = events((await waiting).text)
    assert found[:2] == [("status", {"state": "queued"}), ("status", {"state": "running"})]
    assert [data["text"] for name, data in found if name == "token"] == ["春眠", "不觉", "晓"]
    assert found[-1][0] == "result"
    assert found[-1][1]["id"] == job


async def test_steps_only_go_forward(front: Front, predictor: Predictor, events: Events) -> None:
    client = await front()
    job = await ask(client, kind="image")
    [request] = await until(lambda: predictor.events)
    for step in (2, 1, 2, 3):
        await deliver(
            client, about(job, PROGRESS, GenerationProgress(model="painter", state="running", step=step, of=4))
        )
    await deliver(client, done(request))
    told = events((await client.get(f"/generations/{job}", headers={"Accept": "text/event-stream"})).text)
    assert [data["step"] for name, data in told if name == "progress"] == [2, 3]


async def test_a_failure_is_the_answer(front: Front, predictor: Predictor, slug: Slug) -> None:
    async def answer(event: CloudEvent) -> httpx.Response:
        problem = ProblemError(problems.OUT_OF_MEMORY, "It does not fit.").problem
        headers, body = write_event(about(event.subject, FAILED, problem))
        return httpx.Response(200, headers=headers, content=body)

    predictor.answer = answer
    refused = await (await front()).post("/generate", json={"prompt": "春"})
    assert (refused.status_code, slug(refused)) == (413, "out-of-memory")


async def test_a_client_that_leaves_cancels(serve: Serve, predictor: Predictor) -> None:
    url = await serve(app(predictor))
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/generate", json={"prompt": "春"}, timeout=0.5)
        [event] = await until(lambda: predictor.of(CANCELLED))
        [request] = predictor.of(REQUESTED)
        assert event.subject == request.subject
        assert (await state(client, str(request.subject)))["state"] == "cancelled"
        assert (await deliver(client, done(request))).status_code == 204
        assert (await state(client, str(request.subject)))["state"] == "cancelled", "only the first end counts"


@pytest.mark.parametrize("headers", [{"Accept": "text/event-stream"}, {"Accept": "text/event-stream", **ASYNC}])
async def test_a_client_that_leaves_its_events_cancels_unless_it_said_otherwise(
    serve: Serve, predictor: Predictor, headers: dict[str, str]
) -> None:
    url = await serve(app(predictor))
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        async with client.stream("POST", "/generate", json={"prompt": "春"}, headers=headers) as answer:
            where = answer.headers["location"]
            await until(lambda: predictor.of(REQUESTED))
        if "Prefer" in headers:
            await deliver(client, done(predictor.events[0]))
            assert (await client.get(where)).json()["state"] == "completed"
            assert predictor.of(CANCELLED) == []
        else:
            await until(lambda: predictor.of(CANCELLED))
            assert (await client.get(where)).json()["state"] == "cancelled"


async def test_deleting_tells_the_predictor(front: Front, predictor: Predictor) -> None:
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.of(REQUESTED))
    for _ in range(2):
        assert (await client.delete(f"/generations/{job}")).json()["state"] == "cancelled"
    assert [event.subject for event in predictor.of(CANCELLED)] == [job]


async def test_cancelling_does_not_wait_for_a_sink_that_is_busy(front: Front, predictor: Predictor) -> None:
    """A direct sink answers with the result: it is hung up on, and told besides."""
    hung_up = asyncio.Event()

    async def work(event: CloudEvent) -> httpx.Response:
        if event.type == CANCELLED:
            return httpx.Response(204)
        try:
            await asyncio.Event().wait()
        finally:
            hung_up.set()
        raise AssertionError

    predictor.answer = work
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.of(REQUESTED))
    assert (await client.delete(f"/generations/{job}")).json()["state"] == "cancelled"
    await asyncio.wait_for(hung_up.wait(), LIMIT)
    assert len(predictor.of(CANCELLED)) == 1


@pytest.mark.parametrize("dispatch", ["rest", "events"])
async def test_what_is_cancelled_leaves_its_connection_to_others(serve: Serve, stream: Stream, dispatch: str) -> None:
    async def take(request: Request) -> Response:
        await asyncio.sleep(random.uniform(0, 0.01))
        if request.url.path == "/sink":
            return Response(status_code=202)
        return Response(stream("春"), media_type="text/event-stream")

    url = await serve(Starlette(routes=[Route("/{path:path}", take, methods=["POST"])]))
    models = {"poet": ServedModel(url=url)}
    settings = Settings.model_validate(
        {"models": models, "dispatch": dispatch, "k_sink": url + "/sink", "max_connections": 2, "pool_seconds": 30}
    )
    async with httpx.AsyncClient(base_url=await serve(create_app(settings)), timeout=LIMIT, trust_env=False) as client:

        async def change_ones_mind() -> None:
            job = await ask(client)
            await asyncio.sleep(random.uniform(0, 0.012))
            await client.delete(f"/generations/{job}")

        for _ in range(20):
            await asyncio.gather(*(change_ones_mind() for _ in range(10)))
        job = await ask(client)
        async with asyncio.timeout(LIMIT):
            while "position" in await state(client, job):  # until it is on its way
                await asyncio.sleep(0.01)


async def test_a_reply_to_one_replica_is_for_all(front: Front, predictor: Predictor, redis_url: str) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    waiting = asyncio.create_task(one.post("/generate", json={"prompt": "春"}))
    [request] = await until(lambda: predictor.events)
    answers = await asyncio.gather(*(deliver(client, done(request)) for client in (one, other) * 5))
    assert {answer.status_code for answer in answers} == {204}
    answer = await waiting
    assert (answer.status_code, answer.json()["text"]) == (200, "春眠不觉晓")
    assert len(predictor.events) == 1


# In


async def test_what_is_delivered_more_than_once_counts_once(front: Front, predictor: Predictor, events: Events) -> None:
    client = await front()
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    failure = about(job, FAILED, ProblemError(problems.OUT_OF_MEMORY, "no").problem)
    for reply in (done(request), done(request), failure):
        assert (await deliver(client, reply)).status_code == 204
    assert (await state(client, job))["state"] == "completed"
    told = events((await client.get(f"/generations/{job}", headers={"Accept": "text/event-stream"})).text)
    assert [name for name, _ in told].count("result") == 1


@pytest.mark.parametrize("kind", [COMPLETED, FAILED, PROGRESS, ACCEPTED, CANCELLED, REQUESTED])
async def test_what_is_about_nobody_here_is_taken(front: Front, kind: str) -> None:
    """Other producers' requests are answered on the same broker."""
    client = await front()
    for job in ("unknown", None):
        assert (await deliver(client, about(job, kind))).status_code == 204


async def test_a_request_on_its_way_changes_nothing(front: Front, predictor: Predictor) -> None:
    """A Trigger without a filter brings it here, too."""
    client = await front()
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    assert (await deliver(client, request)).status_code == 204
    assert (await state(client, job))["state"] == "queued"


@pytest.mark.parametrize(
    ("headers", "content", "name"),
    [
        ({}, b"{}", "malformed-event"),
        ({"Content-Type": "application/json"}, b'{"prompt": "x"}', "malformed-event"),
        ({"ce-specversion": "1.0"}, b"", "malformed-event"),
        ({"Content-Type": "application/cloudevents+json"}, b"{", "malformed-event"),
        ({"Content-Type": "application/cloudevents+xml"}, b"<x/>", "unsupported-media-type"),
        (write_event(about("x", "com.example.other"))[0], b"", "malformed-event"),
        (write_event(about("x", COMPLETED))[0] | {"ce-subject": "%zz"}, b"", "malformed-event"),
        (write_event(about("x", COMPLETED))[0] | {"ce-specversion": "2.0"}, b"", "malformed-event"),
        ({}, b" " * 10_485_760, "body-too-large"),
    ],
)
async def test_what_cannot_be_taken(
    front: Front, slug: Slug, headers: dict[str, str], content: bytes, name: str
) -> None:
    assert slug(await (await front()).post("/events", headers=headers, content=content)) == name


async def test_only_named_sources_are_taken(front: Front, slug: Slug) -> None:
    client = await front(events_sources=["urn:shangcai:model:poet"])
    assert slug(await deliver(client, about("x", COMPLETED))) == "forbidden"
    ours = about("x", COMPLETED).model_copy(update={"source": "urn:shangcai:model:poet"})
    assert (await deliver(client, ours)).status_code == 204


@pytest.mark.parametrize("data", [b"", b"{}", b"no json", painting("x").model_dump_json().encode()])
async def test_a_result_that_is_none_ends_the_job(front: Front, predictor: Predictor, slug: Slug, data: bytes) -> None:
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.events)
    reply = about(job, COMPLETED).model_copy(update={"datacontenttype": "application/json", "data": data})
    headers, _ = write_event(reply)
    assert slug(await client.post("/events", headers=headers, content=data)) == "malformed-event"
    assert (await state(client, job))["error"]["type"].endswith("bad-upstream")


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b"no json", "application/json"),
        (b'{"type": "urn:x", "title": "x", "status": 42, "detail": "x"}', "application/json"),
        (b'{"type": "urn:x", "title": "x", "status": 200, "detail": "x"}', "application/json"),
        (b'{"type": "urn:x", "title": "x", "status": 400, "detail": "x"}', "text/plain"),
    ],
)
@pytest.mark.parametrize("delivered", [True, False])
async def test_a_failure_that_is_none_ends_the_job_all_the_same(
    front: Front, predictor: Predictor, slug: Slug, data: bytes, content_type: str, delivered: bool
) -> None:
    def reply(job: str | None) -> tuple[dict[str, str], bytes]:
        return write_event(about(job, FAILED).model_copy(update={"datacontenttype": content_type, "data": data}))

    async def answer(event: CloudEvent) -> httpx.Response:
        headers, body = reply(event.subject)
        return httpx.Response(200, headers=headers, content=body)

    predictor.answer = predictor.taken if delivered else answer
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.events)
    if delivered:
        headers, body = reply(job)
        assert slug(await client.post("/events", headers=headers, content=body)) == "malformed-event"
    document = await ended(client, job)
    assert (document["state"], document["error"]["status"]) == ("failed", 502)
    assert document["error"]["type"].endswith("bad-upstream")


async def test_dead_letters_come_from_here_whatever_sources_are_taken(front: Front, predictor: Predictor) -> None:
    client = await front(events_sources=["urn:shangcai:model:poet"])
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    dead = request.model_copy(update={"extensions": request.extensions | {ERROR_CODE: "500"}})
    assert (await deliver(client, dead)).status_code == 204
    assert (await state(client, job))["state"] == "failed"


async def test_a_forged_reply_is_refused_and_the_job_goes_on(front: Front, predictor: Predictor, slug: Slug) -> None:
    client = await front(events_secret="a secret of the tests")
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    assert slug(await deliver(client, done(request))) == "unauthorized"
    assert (await state(client, job))["state"] == "queued"


# Dead letters


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ({ERROR_CODE: "503", ERROR_DATA: "not base64"}, "503"),
        ({ERROR_DESTINATION: "http://predictor"}, "does not say why"),
        (
            {
                ERROR_CODE: "503",
                ERROR_DATA: base64.b64encode(
                    ProblemError(problems.LOADING, "poet is loading.").problem.model_dump_json().encode()
                ).decode(),
            },
            "poet is loading.",
        ),
    ],
)
async def test_a_dead_request_ends_its_job(
    front: Front, predictor: Predictor, extensions: dict[str, str], said: str
) -> None:
    client = await front()
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    dead = request.model_copy(update={"extensions": request.extensions | extensions})
    assert (await deliver(client, dead)).status_code == 204
    document = await state(client, job)
    assert document["state"] == "failed"
    assert document["error"]["type"].endswith("undelivered")
    assert said in document["error"]["detail"]


async def test_a_dead_reply_is_a_reply(front: Front, predictor: Predictor) -> None:
    client = await front()
    job = await ask(client)
    [request] = await until(lambda: predictor.events)
    reply = done(request)
    dead = reply.model_copy(update={"extensions": reply.extensions | {ERROR_CODE: "500"}})
    assert (await deliver(client, dead)).status_code == 204
    assert (await state(client, job))["state"] == "completed"


async def test_dead_progress_is_no_end(front: Front, predictor: Predictor) -> None:
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.events)
    dead = about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春"), **{ERROR_CODE: "500"})
    assert (await deliver(client, dead)).status_code == 204
    assert (await state(client, job))["state"] == "running"


# Claim checks


async def test_a_result_that_lies_elsewhere(front: Front, predictor: Predictor, tmp_path: Path) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    job = await ask(client)
    await until(lambda: predictor.events)
    (tmp_path / "result.json").write_text(poem(job, "很长很长").model_dump_json())
    reply = about(job, COMPLETED, None, **{DATAREF: tmp_path.as_uri() + "/result.json"})
    assert (await deliver(client, reply)).status_code == 204
    assert (await state(client, job))["result"]["text"] == "很长很长"


@pytest.mark.parametrize("place", ["file:///etc/passwd", "http://169.254.169.254/x", "{}/../x", "{}x/y"])
async def test_what_lies_outside_of_the_artifacts_is_not_read(
    front: Front, predictor: Predictor, tmp_path: Path, slug: Slug, place: str
) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    job = await ask(client)
    await until(lambda: predictor.events)
    reply = about(job, COMPLETED, None, **{DATAREF: place.format(tmp_path.as_uri())})
    assert slug(await deliver(client, reply)) == "malformed-event"
    error = Problem.model_validate((await state(client, job))["error"])
    assert "outside" in error.detail
    assert error.status == 502  # the client has done nothing that it may not


async def test_without_artifacts_a_reference_is_a_clear_failure(front: Front, predictor: Predictor, slug: Slug) -> None:
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.events)
    assert slug(await deliver(client, about(job, COMPLETED, None, **{DATAREF: "s3://x/y"}))) == "malformed-event"
    assert "artifacts" in (await state(client, job))["error"]["detail"]


async def test_artifacts_that_cannot_be_read_are_asked_for_again(
    front: Front, predictor: Predictor, tmp_path: Path, slug: Slug
) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    job = await ask(client)
    await until(lambda: predictor.events)
    reply = about(job, COMPLETED, None, **{DATAREF: tmp_path.as_uri() + "/late.json"})
    assert slug(await deliver(client, reply)) == "unavailable"
    (tmp_path / "late.json").write_text(poem(job).model_dump_json())
    assert (await deliver(client, reply)).status_code == 204
    assert (await state(client, job))["state"] == "completed"


@pytest.mark.parametrize(
    "changes",
    [
        {"images": []},
        {"images": [{"data": "aGk"}]},
        {"images": [{"data": "***"}]},
        {"images": [{"data": ""}]},
        {"images": [{}, {}]},
        {"images": [{"media_type": "text/html"}]},
        {"images": [{"media_type": "image/png\r\nX-Evil: 1"}]},
        {"images": [{"media_type": "image/webp"}]},
    ],
)
async def test_pictures_that_are_none_end_the_job(
    front: Front, predictor: Predictor, slug: Slug, changes: dict[str, Any]
) -> None:
    """They would be handed on as files, and in headers."""
    client = await front()
    job = await ask(client, kind="image")
    await until(lambda: predictor.events)
    document = painting(job).model_dump()
    document["images"] = [{**document["images"][0], **image} for image in changes["images"]]
    data = json.dumps(document).encode()
    reply = about(job, COMPLETED).model_copy(update={"datacontenttype": "application/json", "data": data})
    assert slug(await deliver(client, reply)) == "malformed-event"
    assert (await state(client, job))["error"]["type"].endswith("bad-upstream")


@pytest.mark.parametrize("status", [0, 101, 200, 204, 399, 600, 99_999])
async def test_a_failure_of_no_such_status_ends_the_job(
    front: Front, predictor: Predictor, slug: Slug, status: int
) -> None:
    client = await front()
    job = await ask(client)
    await until(lambda: predictor.events)
    problem = Problem(type="about:blank", title="t", status=status, detail="d")
    assert slug(await deliver(client, about(job, FAILED, problem))) == "malformed-event"
    assert (await state(client, job))["error"]["type"].endswith("bad-upstream")


async def test_of_a_batch_the_wrong_one_is_named(front: Front) -> None:
    headers, body = write_batch([about("x", COMPLETED), about("x", "com.example.other")])
    answer = await (await front()).post("/events", headers=headers, content=body)
    assert answer.json()["detail"].startswith("1.type: ")


async def test_no_address_is_made_up_from_the_host(front: Front) -> None:
    answer = await (await front()).post("/generate/", json={"prompt": "x"}, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers
