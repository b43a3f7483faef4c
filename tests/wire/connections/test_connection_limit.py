"""More connections than a server keeps: those without a request go first, and health is always answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.waiting import SECONDS, eventually
from tests.support.wire.raw_answers import problem
from wire.connections import connection_limit
from wire.connections.connection_limit import ConnectionLimit

Served = Any  # of conftest, which cannot be imported
Start = Callable[[], Awaitable[Served]]

GET = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEALTH = CLOSE.replace(b"quick", b"health")
SLOW = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
MOST, SPARE = 2, 3


@pytest.fixture
def start(serve: Callable[..., Awaitable[Served]], monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(connection_limit, "SPARE_CONNECTIONS", SPARE)
    return lambda: serve(limit=ConnectionLimit(MOST, free_paths=("/health",)))


async def connect(served: Served, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that the server knows of, and what is sent on it."""
    reader, writer = await served.connect()
    client = writer.get_extra_info("sockname")
    await eventually(lambda: any(each.client == client for each in served.server.server_state.connections))
    writer.writelines(sent)
    return reader, writer


async def busy(served: Served, count: int) -> list[asyncio.StreamWriter]:
    writers = [(await connect(served, SLOW))[1] for _ in range(count)]
    await eventually(lambda: served.application.running == count)
    return writers


def close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()


async def test_a_request_too_many_is_told_when_to_come_again(start: Start) -> None:
    served = await start()
    writers = await busy(served, MOST)
    answer = await served.exchange(CLOSE)
    assert problem(answer) == (503, "overloaded")
    assert b"\r\nretry-after: 1\r\n" in answer.lower()
    served.application.gate.set()
    await eventually(lambda: not served.application.running)
    assert (await served.exchange(CLOSE)).startswith(b"HTTP/1.1 200 ")
    close(*writers)


async def test_a_refused_client_that_still_sends_its_body_sees_why(start: Start) -> None:
    served = await start()
    writers = await busy(served, MOST)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    assert problem(await served.exchange(head, b"x" * 1_000_000)) == (503, "overloaded")
    close(*writers)


async def test_health_is_answered_at_the_limit(start: Start) -> None:
    served = await start()
    writers = await busy(served, MOST)
    for _ in range(2 * SPARE):
        assert (await served.exchange(HEALTH)).startswith(b"HTTP/1.1 200 ")
    close(*writers)


async def test_silent_connections_take_nobodys_place(start: Start) -> None:
    served = await start()
    silent = [await connect(served) for _ in range(4 * (MOST + SPARE))]
    assert (await served.exchange(CLOSE)).startswith(b"HTTP/1.1 200 ")
    assert len(served.server.server_state.connections) <= MOST + SPARE
    close(*(writer for _, writer in silent))


async def test_the_longest_idle_connection_goes_first(start: Start) -> None:
    served = await start()
    waiting = await busy(served, 1)
    used, *silent = [await connect(served) for _ in range(MOST + SPARE - 1)]
    used[1].write(GET)  # the oldest is not the longest idle any more
    await used[0].readuntil(b"}")
    more = [await connect(served) for _ in silent]
    for reader, writer in silent:
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        writer.close()
    used[1].write(CLOSE)
    assert b" 200 OK" in await asyncio.wait_for(used[0].read(), SECONDS)
    assert served.application.running == 1
    close(used[1], *waiting, *(writer for _, writer in more))


async def test_a_flood_of_health_has_a_bound_too(start: Start) -> None:
    served = await start()
    free = SLOW.replace(b"/slow", b"/health")
    served.application.slow_paths.add("/health")
    writers = [(await connect(served, free))[1] for _ in range(MOST + SPARE)]
    await eventually(lambda: served.application.running == MOST + SPARE)
    assert await served.exchange() == b""
    close(*writers)
