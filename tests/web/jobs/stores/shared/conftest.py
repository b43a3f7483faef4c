"""A connection to Redis that breaks when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest


class LossyProxy:
    """Passes everything on to Redis, but of the next `lose` requests that hold `command` the answer is lost: the
    connection is cut once Redis has done what it was asked for."""

    def __init__(self, redis_port: int) -> None:
        self._redis_port = redis_port
        self._connections: set[asyncio.Task[None]] = set()
        self._requests: dict[asyncio.StreamWriter, bytes] = {}  # the last one on each connection
        self.command = b""
        self.lose = 0
        self.lost = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", self._redis_port)
        asked = asyncio.create_task(self._pass_on(reader, redis_writer))
        try:
            while (answer := await redis_reader.read(65_536)) and not self._loses(redis_writer):
                writer.write(answer)
        except asyncio.CancelledError:  # the end of the test
            pass
        finally:
            asked.cancel()
            writer.close()
            redis_writer.close()
            self._connections.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, redis_writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while request := await reader.read(65_536):
                self._requests[redis_writer] = request
                redis_writer.write(request)
        redis_writer.close()

    def _loses(self, redis_writer: asyncio.StreamWriter) -> bool:
        loses = self.lose > 0 and self.command in self._requests.get(redis_writer, b"")
        self.lose -= loses
        self.lost += loses
        return loses


@pytest.fixture
async def lossy(redis_server: int) -> AsyncGenerator[LossyProxy]:
    proxy = LossyProxy(redis_server)
    await proxy.open()
    yield proxy
    await proxy.close()
