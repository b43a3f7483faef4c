"""Clients see the same, whichever backend dispatches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.events import (
    ASYNC,
    LIMIT,
    Events,
    Opened,
    Serve,
    Sink,
    ended,
    job_of,
    log_of,
    submit,
)
from web.app import create_app
from web.setting_values import ServedModel
from web.settings import Settings

Handler = Callable[[httpx2.Request], httpx2.Response]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx2.Response]


@pytest.fixture(params=["rest", "events"])
async def either(
    request: pytest.FixtureRequest,
    opened: Opened,
    sink: Sink,
    painter: Handler,
    stream: Stream,
    sse_answer: Answer,
) -> httpx2.AsyncClient:
    """A client of a web that dispatches in one way or the other."""

    def model_server(request: httpx2.Request) -> httpx2.Response:
        return painter(request) if request.url.host == "painter.test" else sse_answer(stream("春眠", "不觉晓"))

    models = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
    settings = Settings(models=models, dispatch=request.param, k_sink="http://sink.test")
    sink.replies()
    transport = httpx2.MockTransport(model_server if request.param == "rest" else sink)
    return await opened(create_app(settings, transport))


async def test_a_text_is_the_same_either_way(either: httpx2.AsyncClient) -> None:
    for headers in ({}, {"Prefer": "wait=10"}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "k"}):
        answer = await either.post("/generate", json={"prompt": "春"}, headers=headers)
        document = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert document.keys() == {"id", "model", "kind", "text", "finish_reason", "usage", "timing"}
        assert (document["text"], document["finish_reason"]) == ("春眠不觉晓", "stop")


async def test_a_picture_is_the_same_either_way(either: httpx2.AsyncClient) -> None:
    request = {"prompt": "猫"}
    for headers in ({}, {"Prefer": "wait=10"}, {"Idempotency-Key": "k"}):
        answer = await either.post("/generate", json=request, headers={**headers, "Accept": "image/png"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content in (b"picture 0", b"a picture")
        assert {"etag", "x-seed", "x-model", "content-disposition"} <= answer.headers.keys()


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, ASYNC])
async def test_events_are_the_same_either_way(
    either: httpx2.AsyncClient, events: Events, headers: dict[str, str]
) -> None:
    answer = await either.post("/generate", json={"prompt": "春", "stream": True}, headers=headers)
    found = events(answer.text)
    assert (found[0][0], found[0][1]["state"]) == ("status", "queued")
    assert [name for name, _ in found].count("result") == 1
    name, result = found[-1]
    assert name == "result"
    assert "".join(data["text"] for name, data in found if name == "token") == result["text"] == "春眠不觉晓"


async def test_an_asynchronous_job_is_the_same_either_way(either: httpx2.AsyncClient, events: Events) -> None:
    job = await submit(either)
    document = await ended(either, job)
    assert (document["state"], document["result"]["text"]) == ("completed", "春眠不觉晓")
    found = events(await log_of(either, job))
    assert found[-1] == ("result", document["result"])


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", ["rest", "events"])
async def test_a_cancelled_job_gives_its_connection_back(serve: Serve, stream: Stream, dispatch: str) -> None:
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
    async with httpx2.AsyncClient(base_url=await serve(create_app(settings)), timeout=LIMIT, trust_env=False) as client:

        async def change_ones_mind() -> None:
            job = await submit(client)
            await asyncio.sleep(random.uniform(0, 0.012))
            await client.delete(f"/generations/{job}")

        for _ in range(20):
            await asyncio.gather(*(change_ones_mind() for _ in range(10)))
        job = await submit(client)
        async with asyncio.timeout(LIMIT):
            while "position" in await job_of(client, job):  # until it is on its way
                await asyncio.sleep(0.01)
