"""Clients that do not read their answers: they cost little memory, and not for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.waiting import SECONDS, eventually
from wire.connections import answer_sender
from wire.connections.answer_sender import PIECE_BYTES, AnswerBudget

Served = Any  # of conftest, which cannot be imported

LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
EVENTS = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
SMALL = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"


def unsent(served: Served) -> int:
    """Bytes of answers that the server holds beside the application's own."""
    return sum(each.transport.get_write_buffer_size() for each in served.server.server_state.connections)


async def read_slowly(served: Served, request: bytes) -> int:
    """Take a little of the answer every few milliseconds until the connection ends; how many bytes came."""
    loop = asyncio.get_running_loop()
    read = 0
    with served.client() as client:
        client.send(request)
        with suppress(ConnectionError):
            while data := await asyncio.wait_for(loop.sock_recv(client, 16_384), SECONDS):
                read += len(data)
                await asyncio.sleep(0.005)
    return read


async def ended(served: Served) -> None:
    """The application has ended, and the connection has been given up with what was not sent."""
    await eventually(lambda: not served.application.running)
    await eventually(lambda: not served.server.server_state.connections)


@pytest.mark.parametrize("request_", [LARGE, EVENTS], ids=["whole", "stream"])
async def test_no_more_is_written_than_is_read(serve: Callable[..., Awaitable[Served]], request_: bytes) -> None:
    served = await serve()
    with served.client() as client:
        client.send(request_)
        await eventually(lambda: unsent(served))
        for _ in range(100):  # turns of the event loop
            await asyncio.sleep(0)
        assert unsent(served) <= 2 * PIECE_BYTES
        assert served.application.running == 1  # and it has not been told that its answer is sent


@pytest.mark.parametrize("request_", [LARGE, EVENTS, 200_000 * SMALL], ids=["whole", "stream", "many"])
async def test_a_client_that_reads_nothing_is_cut_off(
    serve: Callable[..., Awaitable[Served]], caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    caplog.set_level("INFO")
    served = await serve(budget=AnswerBudget(seconds=0.2))
    with served.client() as client:
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, request_))
        await eventually(lambda: "does not read" in caplog.text)
        await ended(served)
        await asyncio.wait({sending})
        sending.exception()  # of many requests the last are not taken


async def test_what_is_left_of_a_whole_answer_is_not_kept_for_ever(serve: Callable[..., Awaitable[Served]]) -> None:
    """The server itself counts an answer as sent when its last piece is in its buffer."""
    served = await serve(budget=AnswerBudget(seconds=0.5))
    served.application.large = b"x" * PIECE_BYTES
    served.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with served.client() as client:
        client.send(LARGE)
        await eventually(lambda: served.server.server_state.total_requests == 1)
        assert unsent(served)
        await ended(served)


async def test_a_client_that_reads_too_slowly_is_cut_off(
    serve: Callable[..., Awaitable[Served]], caplog: pytest.LogCaptureFixture
) -> None:
    """It reads all the time, but would be at it for hours."""
    caplog.set_level("INFO")
    served = await serve(budget=AnswerBudget(seconds=1, bytes_per_second=100_000_000))
    assert await read_slowly(served, LARGE) < len(served.application.large)
    assert "does not read" in caplog.text
    await ended(served)


async def test_a_client_that_reads_a_byte_at_a_time(serve: Callable[..., Awaitable[Served]]) -> None:
    served = await serve(budget=AnswerBudget(seconds=0.2))
    loop = asyncio.get_running_loop()
    with served.client() as client:
        client.send(EVENTS)

        async def read() -> None:
            while await loop.sock_recv(client, 1):
                await asyncio.sleep(0.01)

        reading = asyncio.create_task(read())
        await ended(served)
        reading.cancel()
        await asyncio.wait({reading})


async def test_a_large_answer_arrives_whole(serve: Callable[..., Awaitable[Served]]) -> None:
    served = await serve()
    answer = await served.exchange(LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.partition(b"\r\n\r\n")[2] == served.application.large


async def test_no_heartbeat_comes_within_an_event(serve: Callable[..., Awaitable[Served]]) -> None:
    served = await serve()
    loop = asyncio.get_running_loop()
    answer = bytearray()
    with served.client() as client:
        client.send(EVENTS.replace(b"1.1", b"1.0"))  # without chunks
        while data := await asyncio.wait_for(loop.sock_recv(client, 1_000_000), SECONDS):
            answer += data
    events = bytes(answer).partition(b"\r\n\r\n")[2].replace(b": keep-alive\n\n", b"")
    assert events == b"data: small\n\ndata: " + served.application.large + b"\n\ndata: last\n\n"


async def test_others_are_answered_meanwhile(serve: Callable[..., Awaitable[Served]]) -> None:
    served = await serve()
    clients: list[socket.socket] = [served.client() for _ in range(50)]
    for client in clients:
        client.send(LARGE)
    await eventually(lambda: served.application.running == len(clients))
    answer = await served.exchange(SMALL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert unsent(served) <= 2 * PIECE_BYTES * len(clients)
    for client in clients:
        client.close()
    await ended(served)


async def test_who_reads_nothing_makes_room_for_others(
    serve: Callable[..., Awaitable[Served]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_sender, "STALLED_SECONDS", 0.2)
    served = await serve(budget=AnswerBudget(20_000_000))
    with served.client() as stalled, served.client() as second:
        stalled.send(LARGE)
        await eventually(lambda: served.application.running == 1)
        await eventually(lambda: unsent(served))
        second.send(LARGE)  # nobody else comes to whom the first would have to make room
        await eventually(lambda: len(served.server.server_state.connections) == 2)
        await eventually(lambda: served.application.running == 1)
        answer = await served.exchange(LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert answer.partition(b"\r\n\r\n")[2] == served.application.large
    await ended(served)


async def test_a_single_answer_may_have_any_size(
    serve: Callable[..., Awaitable[Served]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_sender, "STALLED_SECONDS", 0)
    served = await serve(budget=AnswerBudget(1))
    answer = await served.exchange(LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.partition(b"\r\n\r\n")[2] == served.application.large


async def test_an_answer_that_comes_in_parts_has_the_same_time(
    serve: Callable[..., Awaitable[Served]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    served = await serve(budget=AnswerBudget(seconds=1, bytes_per_second=100_000_000))
    await read_slowly(served, LARGE.replace(b"large", b"parts"))
    assert "does not read" in caplog.text
    await ended(served)
