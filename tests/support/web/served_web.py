"""Web in a thread, in front of a model that says what the test tells it, and behind a relay that can cut connections.

In a thread, so that clients of any kind can be tested: programs, and such as block.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.support.waiting import SECONDS, eventually
from web.app import create_app
from web.settings import Settings
from wire.connections.http_protocol import HttpProtocol

PICTURE = b"\x89PNG, or so"


class ServedWeb:
    """`url` is the relay's; `heads` are the requests that have passed it, each with its header fields."""

    def __init__(self) -> None:
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self.asked: list[dict[str, Any]] = []
        """The bodies of the requests to the model."""
        self.running = 0
        self.relay = Relay()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def say(self, *pieces: str | None) -> None:
        """The next tokens of what is written; None ends it."""
        for piece in pieces:
            self.loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def cut(self) -> None:
        """Break all connections of clients."""
        self.loop.call_soon_threadsafe(self.relay.cut)

    async def serve(self, started: threading.Event, stop: asyncio.Event, settings: dict[str, Any]) -> None:
        model = Starlette(
            routes=[
                Route("/v2/health/ready", self._ready),
                Route("/openai/v1/chat/completions", self._write, methods=["POST"]),
                Route("/openai/v1/images/generations", self._paint, methods=["POST"]),
            ]
        )
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(listening(model))
            models = {"poet": url, "painter": {"url": url, "kind": "image"}}
            app = create_app(Settings.model_validate({"models": models, "grace_seconds": 1, **settings}))
            web = await stack.enter_async_context(listening(app))
            self.url = await stack.enter_async_context(self.relay.listening(web))
            started.set()
            await stop.wait()

    async def _ready(self, _request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def _write(self, request: Request) -> Response:
        self.asked.append(await request.json())
        return StreamingResponse(self._chunks(), media_type="text/event-stream")

    async def _chunks(self) -> AsyncGenerator[str]:
        def chunk(delta: dict[str, str], reason: str | None = None) -> str:
            return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n"

        self.running += 1
        try:
            yield chunk({"role": "assistant", "content": ""})
            while (piece := await self._pieces.get()) is not None:
                yield chunk({"content": piece})
            yield chunk({}, "stop")
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
        finally:
            self.running -= 1

    async def _paint(self, request: Request) -> Response:
        self.asked.append(await request.json())
        event = {
            "type": "image_generation.completed",
            "b64_json": base64.b64encode(PICTURE).decode(),
            "output_format": "png",
            "size": "64x64",
            "image_index": 0,
            "seed": 7,
            "steps": 2,
            "created_at": 1,
        }
        progress = {"type": "image_generation.progress", "step": 1, "of": 2, "eta_s": 0.5}
        frames = (f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in (progress, event))
        return StreamingResponse(frames, media_type="text/event-stream")


class Relay:
    """Passes everything on, until it is told to `cut`. Of the next `lose` connections that are answered the answer is
    lost: they are cut once there is one."""

    def __init__(self) -> None:
        self.lose = 0
        self.sent = ""
        """All that clients have sent."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    def headers(self, name: str) -> list[str]:
        """The values of a header field, in the order of the requests that had one."""
        return re.findall(rf"^{name}: (.*?)\r$", self.sent, re.IGNORECASE | re.MULTILINE)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def listening(self, url: str) -> AsyncGenerator[str]:
        self._port = int(url.rpartition(":")[2])
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served, serving = await asyncio.open_connection("127.0.0.1", self._port)
        pair = {writer, serving}
        self._writers |= pair
        asked = asyncio.create_task(self._pass_on(reader, serving))
        with suppress(OSError):
            while answer := await served.read(65_536):
                if self.lose:
                    self.lose -= 1
                    break
                writer.write(answer)
        asked.cancel()
        self._writers -= pair
        for each in pair:
            each.close()

    async def _pass_on(self, reader: asyncio.StreamReader, serving: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while request := await reader.read(65_536):
                self.sent += request.decode(errors="replace")
                serving.write(request)
        serving.close()


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncGenerator[str]:
    """Serves an application on a port of its own, and gives its address."""
    protocol: Any = partial(HttpProtocol)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=protocol, lifespan="on", log_config=None)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@contextmanager
def served_web(**settings: Any) -> Iterator[ServedWeb]:
    """Web with these settings, until the end of the context."""
    served, started, stop = ServedWeb(), threading.Event(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: served.loop) as runner:
            runner.run(served.serve(started, stop, settings))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield served
    finally:
        served.loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
        assert not thread.is_alive()
