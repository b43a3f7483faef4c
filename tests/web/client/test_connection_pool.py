"""The transport on real sockets: model servers that answer as they should, and some that do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx
import pytest

from tests.support.waiting import eventually
from web.client.connection_pool import UNREAD_BYTES, ConnectionPool

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RawServer = Callable[[Connection], Awaitable[str]]

LIMIT = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    """With one connection at a time."""
    async with httpx.AsyncClient(transport=ConnectionPool(True, 1, 60), timeout=LIMIT) as client:
        yield client


async def read_to_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionResetError):
        await reader.read()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"{}",
    ],
    ids=["length", "chunks", "interim response"],
)
async def test_an_answer_however_it_is_cut(client: httpx.AsyncClient, raw_server: RawServer, answer: bytes) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        head = b"again"
        while head:
            for byte in answer:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            head = await reader.read(65_536)

    url = await raw_server(serve)
    for _ in range(3):
        response = await client.post(url, json={})
        assert (response.status_code, response.json()) == (200, {})
    assert connections == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"nothing of HTTP\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, httpx.RemoteProtocolError),
        (OK + b"{", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", httpx.RemoteProtocolError),
    ],
    ids=["nothing", "no HTTP", "an endless header", "half a body", "half a chunk"],
)
async def test_an_answer_that_is_none(
    client: httpx.AsyncClient, raw_server: RawServer, answer: bytes, error: type[Exception]
) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    url = await raw_server(serve)
    for _ in range(2):  # the place is free again
        with pytest.raises(error):
            await client.post(url, json={})


async def test_a_server_that_resets_the_connection(client: httpx.AsyncClient, raw_server: RawServer) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.post(await raw_server(serve), json={})


@pytest.mark.parametrize("sent", [b"", OK], ids=["before the header", "within the body"])
async def test_silence(client: httpx.AsyncClient, raw_server: RawServer, sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await read_to_end(reader)

    with pytest.raises(httpx.ReadTimeout):
        await client.post(await raw_server(serve), json={}, timeout=httpx.Timeout(LIMIT, read=0.05))


async def test_a_request_that_cannot_be_written(client: httpx.AsyncClient, raw_server: RawServer) -> None:
    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await read_to_end(reader)

    with pytest.raises(httpx.LocalProtocolError):
        await client.post(await raw_server(serve), json={}, headers={"X": "a\r\nb"})


async def test_a_connection_whose_server_closes_it_is_not_used_again(
    client: httpx.AsyncClient, raw_server: RawServer
) -> None:
    connections = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")

    url = await raw_server(serve)
    for _ in range(3):
        assert (await client.post(url, json={})).json() == {}
    assert connections == 3


async def test_an_answer_that_nobody_has_asked_for(client: httpx.AsyncClient, raw_server: RawServer) -> None:
    """Of a server that answers once more, the next request would get the answer to this one."""
    ends = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ends
        writer.write(OK + b"{}")
        await asyncio.sleep(0.02)
        writer.write(OK + b"[]")
        await read_to_end(reader)
        ends += 1

    url = await raw_server(serve)
    assert (await client.post(url, json={})).json() == {}
    await eventually(lambda: ends == 1, "the connection is closed")
    assert (await client.post(url, json={})).json() == {}


async def test_a_request_that_is_cancelled_closes_its_connection(
    client: httpx.AsyncClient, raw_server: RawServer
) -> None:
    asked, ended = 0, 0

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal asked, ended
        asked += 1
        await read_to_end(reader)
        ended += 1

    url = await raw_server(serve)
    for number in range(1, 4):
        request = asyncio.create_task(client.post(url, json={}))
        await eventually(lambda: asked == number)  # noqa: B023  it is called within this round
        request.cancel()
        await asyncio.wait({request})
        await eventually(lambda: ended == number)  # noqa: B023


async def test_an_answer_that_is_not_read_is_not_taken_whole(client: httpx.AsyncClient, raw_server: RawServer) -> None:
    size, written = 64 * UNREAD_BYTES, 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while written < size:
            writer.write(b"x" * UNREAD_BYTES)
            await writer.drain()
            written += UNREAD_BYTES

    async with client.stream("POST", await raw_server(serve), json={}) as response:
        for _ in range(100):  # the server's turns, and ours
            await asyncio.sleep(0)
        assert written < size
        assert len(await response.aread()) == size
