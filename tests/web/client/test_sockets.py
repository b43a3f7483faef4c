"""Promises about sockets: real servers on both sides, and clients and model servers that misbehave on them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract.limits import SEND_SECONDS
from tests.support.waiting import eventually
from web.app import create_app
from web.settings import Settings
from wire.connections.answer_sender import AnswerBudget
from wire.request_guard import RequestGuard

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RawServer = Callable[[Connection], Awaitable[str]]
Serve = Callable[..., Awaitable[str]]
Stream = Callable[..., bytes]
Slug = Callable[[httpx2.Response], str]
Start = Callable[..., Awaitable[str]]

LIMIT = 10.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = json.dumps({"prompt": "x"}).encode()
LIVE = json.dumps({"prompt": "x", "stream": True}).encode()


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def post(body: bytes, *headers: bytes) -> bytes:
    head = [b"POST /generate HTTP/1.1", b"Host: web.test", b"Content-Type: application/json", *headers]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


@pytest.fixture
def start(serve: Serve) -> Start:
    """The application on a socket, in front of the model server at this address."""

    async def run(upstream: str, send_seconds: float = SEND_SECONDS, **settings: Any) -> str:
        budget = AnswerBudget(seconds=send_seconds)
        return await serve(create_app(Settings(models={"poet": upstream}, **settings)), budget=budget)

    return run


@pytest.fixture
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT) as client:
        yield client


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", httpx2.URL(url).port)


async def test_a_refused_connection(start: Start, client: httpx2.AsyncClient, closed_port: int, slug: Slug) -> None:
    url = await start(f"http://127.0.0.1:{closed_port}")
    response = await client.post(f"{url}/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (503, "unavailable")
    assert response.headers["retry-after"]
    assert str(closed_port) not in response.text


async def test_a_name_that_does_not_resolve(start: Start, client: httpx2.AsyncClient, slug: Slug) -> None:
    url = await start("http://poet.invalid")
    response = await client.post(f"{url}/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (503, "unavailable")


@pytest.mark.parametrize("abort", [True, False], ids=["reset", "closed"])
async def test_a_connection_lost_within_the_stream(
    start: Start, raw_server: RawServer, client: httpx2.AsyncClient, slug: Slug, stream: Stream, abort: bool
) -> None:
    async def break_off(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(stream("x", finish_reason=None, usage=None, done=False)))
        await writer.drain()
        if abort:
            writer.transport.abort()
        else:
            writer.close()

    url = await start(await raw_server(break_off))
    response = await client.post(f"{url}/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (502, "bad-upstream")


@pytest.mark.parametrize("answer", [b"", b"\x00\x01garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_an_answer_that_is_no_http(
    start: Start, raw_server: RawServer, client: httpx2.AsyncClient, slug: Slug, answer: bytes
) -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    url = await start(await raw_server(babble))
    response = await client.post(f"{url}/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (502, "bad-upstream")


@pytest.mark.parametrize(
    ("sent", "idle_seconds"), [(b"", 0), (HEAD, 0), (HEAD, 60)], ids=["no header", "no events", "no events, just woken"]
)
async def test_a_silent_model_server(
    start: Start, raw_server: RawServer, client: httpx2.AsyncClient, slug: Slug, sent: bytes, idle_seconds: float
) -> None:
    """A model that may have to wake up first is given all the time there is to begin its answer: see test_waiting."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await reader.read()

    url = await start(await raw_server(hold), read_seconds=0.1, idle_seconds=idle_seconds)
    response = await client.post(f"{url}/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (504, "upstream-timeout")


async def test_heartbeats_break_the_silence(
    start: Start, raw_server: RawServer, client: httpx2.AsyncClient, stream: Stream
) -> None:
    async def beat(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(40):
            writer.write(chunked(b": heartbeat\n\n"))
            await asyncio.sleep(0.02)
        writer.write(chunked(stream("x")) + chunked(b""))

    url = await start(await raw_server(beat), read_seconds=0.5)
    assert (await client.post(f"{url}/generate", json={"prompt": "x"})).json()["text"] == "x"


async def test_a_full_pool(start: Start, raw_server: RawServer, client: httpx2.AsyncClient, slug: Slug) -> None:
    busy = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        busy.set()
        await reader.read()

    url = await start(await raw_server(hold), max_connections=1, pool_seconds=0.1)
    first = asyncio.create_task(client.post(f"{url}/generate", json={"prompt": "x"}))
    await asyncio.wait_for(busy.wait(), LIMIT)
    response = await client.post(f"{url}/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (503, "overloaded")
    first.cancel()
    await asyncio.wait([first])


async def test_a_connection_is_used_again(
    start: Start, raw_server: RawServer, client: httpx2.AsyncClient, stream: Stream
) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        whole = HEAD + chunked(stream("x")) + chunked(b"")
        writer.write(whole)
        while head := await reader.read(65536):
            assert head.startswith(b"POST")
            writer.write(whole)

    url = await start(await raw_server(answer))
    for request in ({"prompt": "x"}, {"prompt": "x", "stream": True}, {"prompt": "x"}):
        assert (await client.post(f"{url}/generate", json=request)).status_code == 200
    assert connections == 1


@pytest.mark.parametrize("body", [REQUEST, LIVE], ids=["JSON", "SSE"])
@pytest.mark.parametrize("sent", [b"", HEAD, None], ids=["before the header", "while queued", "while running"])
async def test_a_client_that_leaves_cancels_upstream(
    start: Start,
    raw_server: RawServer,
    stream: Stream,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    sent: bytes | None,
) -> None:
    caplog.set_level("INFO")
    asked, left = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(stream("x", finish_reason=None, usage=None, done=False)) if sent is None else sent)
        await writer.drain()
        asked.set()
        assert await reader.read() == b""  # the end of the connection
        left.set()

    url = await start(await raw_server(hold))
    _, writer = await connect(url)
    writer.write(post(body))
    await asyncio.wait_for(asked.wait(), LIMIT)
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(left.wait(), LIMIT)
    await eventually(lambda: "the client left" in caplog.text)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_reads_no_more_cancels_upstream(
    start: Start, client: httpx2.AsyncClient, raw_server: RawServer, stream: Stream
) -> None:
    left = asyncio.Event()
    piece = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % (b"x" * 60_000)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if left.is_set():
            writer.write(HEAD + chunked(stream("spring")) + chunked(b""))
            return
        writer.write(HEAD + chunked(piece) * 200)  # more than the sockets between hold, less than ANSWER_BYTES
        with contextlib.suppress(ConnectionResetError):  # closed over what it has not read
            assert await reader.read() == b""
        left.set()

    url = await start(await raw_server(flood), send_seconds=0.2, max_in_flight=1)
    with socket.create_connection(("127.0.0.1", httpx2.URL(url).port or 0)) as reader:
        reader.sendall(post(LIVE))
        await asyncio.wait_for(left.wait(), LIMIT)

        async def place_is_free() -> bool:
            return (await client.post(f"{url}/generate", json={"prompt": "x"})).status_code == 200

        await eventually(place_is_free, "the slow reader's place is free, though its connection is still there")


async def test_a_body_that_comes_slowly(start: Start, closed_port: int) -> None:
    url = await start(f"http://127.0.0.1:{closed_port}", body_seconds=0.1)
    reader, writer = await connect(url)
    writer.write(post(REQUEST)[:-1])
    answer = await asyncio.wait_for(reader.read(), LIMIT)  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:shangcai:problem:body-timeout" in answer
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_a_client_that_leaves_within_its_body(
    start: Start, client: httpx2.AsyncClient, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = await start(f"http://127.0.0.1:{closed_port}")
    _, writer = await connect(url)
    writer.write(post(REQUEST)[:-1])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: "499" in caplog.text)
    assert "Traceback" not in caplog.text
    assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}


async def test_a_client_sees_why_its_huge_body_is_refused(
    start: Start, client: httpx2.AsyncClient, closed_port: int, slug: Slug
) -> None:
    """More than the sockets hold: it is still sending when the answer comes."""
    url = await start(f"http://127.0.0.1:{closed_port}")
    response = await client.post(f"{url}/generate", content=b"x" * 20_000_000)
    assert (response.status_code, slug(response)) == (413, "body-too-large")


async def test_an_announced_body_over_the_limit_is_refused_before_it_comes(start: Start, closed_port: int) -> None:
    url = await start(f"http://127.0.0.1:{closed_port}", body_bytes=100, body_seconds=0.1)
    reader, writer = await connect(url)
    writer.write(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), LIMIT)
    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_requests_in_one_packet_are_answered_in_order(
    start: Start, raw_server: RawServer, stream: Stream
) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(stream("x")) + chunked(b""))

    url = await start(await raw_server(answer))
    reader, writer = await connect(url)
    healthz = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(healthz + post(REQUEST) + b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answers = await asyncio.wait_for(reader.read(), LIMIT)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"404"]
    writer.close()


async def test_many_clients_of_which_half_leave(
    serve: Serve, start: Start, client: httpx2.AsyncClient, stream: Stream
) -> None:
    """The others are served, and no connection of the pool is lost: as many as it holds work at once afterwards."""
    release, running = asyncio.Event(), 0

    async def poet(_request: Request) -> Response:
        nonlocal running
        running += 1
        try:
            await asyncio.wait_for(release.wait(), LIMIT)
        finally:
            running -= 1
        return Response(stream("x"), media_type="text/event-stream")

    route = Route("/openai/v1/chat/completions", poet, methods=["POST"])
    upstream = await serve(RequestGuard(Starlette(routes=[route])))
    url = await start(upstream, max_connections=10, pool_seconds=LIMIT)
    clients = [await connect(url) for _ in range(40)]
    for _, writer in clients:
        writer.write(post(REQUEST))
    await eventually(lambda: running == 10, "ten requests run")
    for _, writer in clients[::2]:
        writer.close()
    await eventually(lambda: running == 10, "ten requests run")
    release.set()
    for reader, _ in clients[1::2]:
        assert (await asyncio.wait_for(reader.readline(), LIMIT)).startswith(b"HTTP/1.1 200")
    for _, writer in clients:
        writer.close()

    release.clear()
    again = [asyncio.create_task(client.post(f"{url}/generate", json={"prompt": "x"})) for _ in range(10)]
    await eventually(lambda: running == 10, "ten requests run")
    release.set()
    assert {(await task).status_code for task in again} == {200}


@pytest.mark.parametrize("closes", ["the model server", "web"])
async def test_idle_connections_are_closed_without_a_further_request(
    start: Start,
    raw_server: RawServer,
    client: httpx2.AsyncClient,
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
    closes: str,
) -> None:
    """Else each would stay in CLOSE-WAIT, or open, until the next burst."""
    monkeypatch.setattr("web.client.client.REAP_SECONDS", 0.01)
    ended, busy, release = 0, 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended, busy
        busy += 1
        await release.wait()
        writer.write(HEAD + chunked(stream("x")) + chunked(b""))
        if closes == "the model server":
            writer.write_eof()
        assert await reader.read() == b""
        ended += 1

    keepalive = 0.1 if closes == "web" else 600
    url = await start(await raw_server(answer), keepalive_seconds=keepalive)
    burst = [asyncio.create_task(client.post(f"{url}/generate", json={"prompt": "x"})) for _ in range(10)]
    await eventually(lambda: busy == 10, "ten requests run")
    release.set()
    assert {(await one).status_code for one in burst} == {200}
    await eventually(lambda: ended == 10, "all ten are closed")
