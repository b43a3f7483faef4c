"""Whatever goes wrong while pictures are made: an answer that is not whole is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from contract import ProblemError, problems
from tests.support.wire.instances import without_instance
from web.app import create_app
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Answer = Callable[..., httpx2.Response]
Made = Callable[..., dict[str, Any]]
PictureStream = Callable[..., bytes]
Events = Callable[[str], list[tuple[str, Any]]]
Slug = Callable[[httpx2.Response], str]
Serve = Callable[..., Awaitable[str]]
RawServer = Callable[..., Awaitable[str]]

LIMIT = 10.0
PICTURE = {"prompt": "x", "kind": "image"}
STARTED = {"type": "image_generation.started", "queue_s": 0.1}
PROGRESS = {"type": "image_generation.progress", "step": 1, "of": 2}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("live", [False, True], ids=["JSON", "SSE"])
@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (1, []),
        (2, [{}]),
        (1, [{}, {"image_index": None}]),
        (2, [{}, {}]),
        (1, [{"image_index": 1}]),
        (1, [{"image_index": -1}]),
        (1, [{"image_index": 10**30}]),
        (1, [{"b64_json": "no base64"}]),
        (1, [{"b64_json": "eA="}]),
        (1, [{"b64_json": ""}]),
        (1, [{"b64_json": None}]),
        (1, [{"size": "auto"}]),
        (1, [{"size": "0x64"}]),
        (1, [{"size": None}]),
        (1, [{"output_format": "gif"}]),
        (1, [{"output_format": "webp"}]),
        (1, [{"seed": -1}]),
        (1, [{"understood": "cat"}]),
        (1, [{"type": "image_generation.partial_image"}]),
        (1, [{"type": "image_generation.cancelled"}]),
    ],
)
async def test_an_answer_other_than_requested_is_no_result(
    web: Web,
    sse_answer: Answer,
    picture: Made,
    picture_stream: PictureStream,
    events: Events,
    slug: Slug,
    count: int,
    changes: list[dict[str, Any]],
    live: bool,
) -> None:
    stream = picture_stream(STARTED, *(picture(**change) for change in changes))
    request = {**PICTURE, "n": count, "format": "png", "stream": live}
    response = await web(lambda _: sse_answer(stream)).post("/generate", json=request)
    if live:
        name, problem = events(response.text)[-1]
        assert (name, problem["type"]) == ("error", problems.BAD_UPSTREAM.uri)
    else:
        assert (response.status_code, slug(response)) == (502, "bad-upstream")


@pytest.mark.parametrize(
    "event", ['{"type": "image_generation.progress", "step": 1, "of": 2, "eta_s": NaN}', "{", "[]", '{"choices": []}']
)
async def test_events_that_are_none_of_a_picture(web: Web, sse_answer: Answer, slug: Slug, event: str) -> None:
    client = web(lambda _: sse_answer(f"data: {event}\n\n".encode()))
    assert slug(await client.post("/generate", json=PICTURE)) == "bad-upstream"


async def test_a_problem_of_our_predictor_within_the_stream_is_passed_on(
    web: Web, sse_answer: Answer, picture_stream: PictureStream, slug: Slug
) -> None:
    problem = ProblemError(problems.OUT_OF_MEMORY, "1024x1024 needs 3.1 GiB; 2.0 GiB are free.").document
    stream = picture_stream(STARTED, {**problem, "error": {"message": "x"}})
    response = await web(lambda _: sse_answer(stream)).post("/generate", json=PICTURE)
    assert (response.status_code, slug(response)) == (413, "out-of-memory")
    assert without_instance(response) == problem


async def test_an_error_of_another_runtime_within_the_stream(
    web: Web, sse_answer: Answer, picture_stream: PictureStream, slug: Slug
) -> None:
    stream = picture_stream({"type": "error", "error": {"message": "CUDA out of memory at painter.test"}})
    response = await web(lambda _: sse_answer(stream)).post("/generate", json=PICTURE)
    assert (response.status_code, slug(response)) == (502, "bad-upstream")
    assert "painter.test" not in response.text


@pytest.mark.parametrize("limit", ["PICTURE_BYTES", "ANSWER_BYTES"])
async def test_pictures_have_a_limit(
    web: Web,
    sse_answer: Answer,
    picture: Made,
    picture_stream: PictureStream,
    slug: Slug,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    monkeypatch.setattr("web.rest.picture_call.picture_bytes", lambda _: 500)
    monkeypatch.setattr("web.rest.picture_call.EVENT_BYTES", 500)
    monkeypatch.setattr("web.rest.picture_call.OTHER_BYTES", 1_000)
    size = {"PICTURE_BYTES": 1_200, "ANSWER_BYTES": 100}[limit]
    preview = {**picture(b"x" * size), "type": "image_generation.partial_image"}
    stream = picture_stream(*[preview] * 10)
    parts = [stream[at : at + 100] for at in range(0, len(stream), 100)]
    response = await web(lambda _: sse_answer(*parts)).post("/generate", json=PICTURE)
    assert (response.status_code, slug(response)) == (502, "bad-upstream")


@pytest.mark.parametrize(
    ("settings", "headers", "level"),
    [({}, {"X-Request-Timeout": "0.1"}, "INFO"), ({"generate_seconds": 0.1}, {}, "WARNING")],
)
async def test_progress_does_not_outlast_the_time_for_a_generation(
    web: Web,
    picture_stream: PictureStream,
    slug: Slug,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, float],
    headers: dict[str, str],
    level: str,
) -> None:
    """A limit of the client's own is nobody's failure."""
    caplog.set_level("INFO")

    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield picture_stream(PROGRESS)
            await asyncio.sleep(0.01)

    answer = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=endless())
    response = await web(lambda _: answer, **settings).post("/generate", json=PICTURE, headers=headers)
    assert (response.status_code, slug(response)) == (504, "too-late")
    assert [record.levelname for record in caplog.records if record.message.startswith("too-late")] == [level]


async def test_each_model_has_its_own_concurrency_limit(web: Web, slug: Slug) -> None:
    held, arrived = asyncio.Event(), asyncio.Event()

    async def hold(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "painter.test":
            arrived.set()
            await held.wait()
        return httpx2.Response(500)

    client = web(hold, max_in_flight=1, max_waiting=0)
    first = asyncio.create_task(client.post("/generate", json=PICTURE))
    await arrived.wait()
    assert slug(await client.post("/generate", json=PICTURE)) == "overloaded"
    assert slug(await client.post("/generate", json={"prompt": "x"})) == "bad-upstream"
    held.set()
    await first


async def test_the_request_id_and_the_time_are_passed_on(web: Web, seen: list[httpx2.Request]) -> None:
    headers = {"X-Request-Id": "order-66", "X-Request-Timeout": "20", "Accept": "image/png"}
    response = await web().post("/generate", json=PICTURE, headers=headers)
    assert response.headers["x-request-id"] == "order-66"
    assert (seen[0].headers["x-request-id"], seen[0].headers["x-request-timeout"]) == ("order-66", "20")


async def test_heartbeats_fill_the_silence_between_steps(
    web: Web, picture: Made, picture_stream: PictureStream, events: Events
) -> None:
    async def content() -> AsyncGenerator[bytes]:
        yield picture_stream(STARTED)
        await asyncio.sleep(0.2)  # the silence itself
        yield picture_stream(picture())

    answer = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())
    response = await web(lambda _: answer, heartbeat_seconds=0.02).post("/generate", json={**PICTURE, "stream": True})
    assert ": keep-alive\n\n: keep-alive\n\n" in response.text
    assert [name for name, _ in events(response.text)] == ["status", "status", "result"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "image/png", "multipart/mixed"])
async def test_a_client_that_leaves_cancels_upstream(
    serve: Serve, raw_server: RawServer, picture_stream: PictureStream, accept: str
) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + picture_stream(STARTED, PROGRESS))
        await writer.drain()
        asked.set()
        assert await reader.read() == b""  # the end of the connection
        left.set()

    models: dict[str, Any] = {"painter": {"url": await raw_server(hold), "kind": "image"}}
    url = await serve(create_app(Settings(models=models)))
    async with httpx2.AsyncClient(trust_env=False) as client:
        waiting = asyncio.create_task(client.post(f"{url}/generate", json=PICTURE, headers={"Accept": accept}))
        await asyncio.wait_for(asked.wait(), LIMIT)
        waiting.cancel()
        await asyncio.wait([waiting])
    await asyncio.wait_for(left.wait(), LIMIT)
