"""A server on a socket, under both event loops, and clients that are made of bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from contract import problems
from contract.problems import ProblemError
from tests.support.waiting import SECONDS, eventually
from wire.connections.http_protocol import HttpProtocol
from wire.listener import listen
from wire.request_context import RequestContextMiddleware
from wire.request_guard import RequestGuard
from wire.sse import EventStream, frame


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's, which the tests of web and the predictor have, and uvloop's, which both servers run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Application:
    """`/echo` answers with the body, `/slow` when the gate opens, `/stream` in pieces, `/broken` with a piece and a
    problem, `/large` with `large`, `/events` with events of which one is `large`; everything else at once."""

    large = b"x" * 16_000_000

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.slow_paths = {"/slow"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.running += 1
        try:
            response = await self._response(request)
            await response(scope, receive, send)
        finally:
            self.running -= 1

    async def _response(self, request: Request) -> Response:
        if request.url.path in self.slow_paths:
            await self.gate.wait()
        match request.url.path:
            case "/echo":
                return Response(await request.body())
            case "/stream":
                return StreamingResponse(self._pieces())
            case "/broken":
                return StreamingResponse(self._broken())
            case "/large":
                return Response(self.large)
            case "/parts":
                parts = (self.large[start : start + 50_000] for start in range(0, len(self.large), 50_000))
                return StreamingResponse(parts, headers={"Content-Length": str(len(self.large))})
            case "/events":
                return EventStream(self._events(), heartbeat_seconds=0.001)
        return JSONResponse({"path": request.scope["path"]})

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b"one, "
        await self.gate.wait()
        yield b"two"

    async def _events(self) -> AsyncGenerator[bytes]:
        yield frame("small")
        yield frame(self.large.decode())
        yield frame("last")

    async def _broken(self) -> AsyncIterator[bytes]:
        yield b"one, "
        raise ProblemError(problems.UNAVAILABLE, "The server is shutting down.")


class Served:
    """A server on a socket, and one client after the other."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket, application: Application) -> None:
        self.server = server
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.application = application

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def client(self) -> socket.socket:
        """A connection whose client takes only what it is told to."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        return client

    async def exchange(self, *sent: bytes, half_close: bool = False) -> bytes:
        """Send each part by itself, and read until the server closes the connection."""
        reader, writer = await self.connect()
        for part in sent:
            writer.write(part)
            await writer.drain()
        if half_close:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), SECONDS)
        finally:
            writer.close()


@pytest.fixture
async def serve(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Start a server with these options of its protocol; in the end no traceback may have been logged."""
    running: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    async def start(graceful_seconds: int | None = None, **options: Any) -> Served:
        application = Application()
        app = RequestContextMiddleware(RequestGuard(application))
        protocol: Any = partial(HttpProtocol, **options)
        config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)
        config.timeout_graceful_shutdown = graceful_seconds
        server, listener = uvicorn.Server(config), listen("127.0.0.1", 0)
        running.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        await eventually(lambda: server.started)
        return Served(server, listener, application)

    yield start
    for server, task in running:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.should_exit = True
        await asyncio.wait_for(task, SECONDS)
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [record.getMessage() for record in records if record.exc_info] == []


@pytest.fixture
async def served(serve: Callable[..., Awaitable[Served]]) -> Served:
    return await serve()
