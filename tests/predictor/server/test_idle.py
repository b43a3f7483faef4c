"""Leaving when idle: only from a server that nobody is connected to, and without losing who comes just then."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from contract.cloudevents import REQUESTED
from predictor.protocols.kserve_text import TextModel
from predictor.server import http_server
from predictor.server import model_server as server
from predictor.server.http_server import HttpServer
from predictor.server.model_server import PredictorServer
from wire.listener import listen

CHAT = {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}
ROUTE = "/openai/v1/chat/completions"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": REQUESTED}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 0.2)
    monkeypatch.setattr(server, "SILENT_SECONDS", 1)


@dataclass
class Serving:
    engine: Any
    server: PredictorServer
    task: asyncio.Task[None]

    def tire(self) -> None:
        """Have it leave soon, if it may: from the start, it could have left before a slow machine came to the point."""
        self.server._idle_seconds = 0.05


@pytest.fixture
async def listener() -> AsyncIterator[socket.socket]:
    """What a supervisor holds for as long as it lives."""
    with listen("127.0.0.1", 0) as listener:
        yield listener


@pytest.fixture
def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
async def serve(listener: socket.socket, engine: Any) -> AsyncIterator[Callable[..., Serving]]:
    """Start a server as its next process would be: with the same socket, but an engine of its own."""
    async with AsyncExitStack() as stack:

        def start(idle_seconds: float, *, load: bool = True) -> Serving:
            own = type(engine)()
            if load:
                own.load_gate.set()
            model = TextModel("poet", own)
            predictor = PredictorServer(
                model, listener.dup(), grpc_port=None, grace_seconds=5, idle_seconds=idle_seconds
            )
            model.start_loading(on_failure=predictor.leave)
            task = asyncio.create_task(predictor._serve())

            async def end() -> None:
                task.cancel()
                await asyncio.wait({task})

            stack.push_async_callback(end)
            return Serving(own, predictor, task)

        yield start


async def test_a_server_that_nobody_asks_leaves(serve: Callable[..., Serving]) -> None:
    serving = serve(0.05)
    await asyncio.wait_for(serving.task, 20)
    assert serving.engine.stopped


async def test_it_does_not_leave_before_it_is_ready(serve: Callable[..., Serving]) -> None:
    serving = serve(0.01, load=False)
    await asyncio.sleep(0.5)  # many times as long as it may be idle, in which nothing is to happen
    assert not serving.task.done()
    serving.engine.load_gate.set()
    await asyncio.wait_for(serving.task, 20)


async def test_who_comes_when_the_door_is_shut_is_served_by_the_next(serve: Callable[..., Serving], url: str) -> None:
    await asyncio.wait_for(serve(0.01).task, 20)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        asking = asyncio.create_task(client.get("/v2/health/live"))
        await asyncio.sleep(0.2)  # it is connected, and waits
        assert not asking.done()
        serve(10)
        assert (await asking).status_code == 200


async def test_a_generation_keeps_it_awake(serve: Callable[..., Serving], url: str, eventually: Any) -> None:
    serving, gate = serve(60), asyncio.Event()
    serving.engine.enqueue("spring", gate, " rain")
    await eventually(lambda: serving.server.model.startup.ready)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        asking = asyncio.create_task(client.post(ROUTE, json=CHAT))
        await eventually(lambda: serving.engine.generations)
        serving.tire()
        await asyncio.sleep(0.5)
        gate.set()
        assert (await asking).json()["choices"][0]["message"]["content"] == "spring rain"
    await asyncio.wait_for(serving.task, 20)


async def test_an_event_that_nobody_waits_for_keeps_it_awake(
    serve: Callable[..., Serving], url: str, eventually: Any
) -> None:
    serving, gate = serve(60), asyncio.Event()
    serving.engine.enqueue("spring", gate)
    await eventually(lambda: serving.server.model.startup.ready)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        delivery = asyncio.create_task(client.post("/", json={"prompt": "moon"}, headers=EVENT))
        await eventually(lambda: serving.engine.generations)
        delivery.cancel()
    serving.tire()
    await asyncio.sleep(0.7)  # the connection is closed, and nothing else is asked
    assert not serving.task.done()
    gate.set()
    await asyncio.wait_for(serving.task, 20)


async def test_a_connection_that_may_be_used_again_keeps_it_awake(
    serve: Callable[..., Serving], url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 3)
    serving = serve(60)
    serving.engine.enqueue("spring")
    await eventually(lambda: serving.server.model.startup.ready)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await client.post(ROUTE, json=CHAT)
        serving.tire()
        await asyncio.sleep(0.5)
        assert not serving.task.done()
        await asyncio.wait_for(serving.task, 20)


async def test_polls_on_a_connection_that_is_kept_do_not_keep_it_awake(serve: Callable[..., Serving], url: str) -> None:
    serving = serve(0.5)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while not serving.task.done():
            polling = asyncio.create_task(client.get("/v2/health/ready"))
            await asyncio.wait({polling, serving.task}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.1)  # less than the server keeps a connection
        polling.cancel()


async def test_connections_of_polls_are_kept_while_it_is_busy(serve: Callable[..., Serving], url: str) -> None:
    serve(30)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.get("/v2/health/live")
    assert "connection" not in answer.headers


async def test_a_connection_without_a_request_does_not_keep_it_awake(serve: Callable[..., Serving], url: str) -> None:
    serving = serve(0.05)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
        await asyncio.wait_for(serving.task, 20)


async def test_nothing_is_lost_when_servers_leave_all_the_time(serve: Callable[..., Serving], url: str) -> None:
    cycles, answers, servings = 10, 0, 0

    async def supervise() -> None:
        nonlocal servings
        while servings < cycles:
            serving = serve(0.02)
            for number in range(1000):
                serving.engine.enqueue(f"text {number}")
            servings += 1
            await asyncio.wait_for(serving.task, 30)

    async def ask(seed: int) -> None:
        nonlocal answers
        chance = random.Random(seed)
        headers = {"connection": "close"} if seed % 2 else {}
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                answer = await client.get("/v2/health/live", headers=headers)
                assert answer.status_code == 200
                answer = await client.post(ROUTE, json=CHAT, headers=headers)
                assert answer.status_code in (200, 503), answer.text
                answers += 1
                await asyncio.sleep(chance.uniform(0, 0.6))

    clients = [asyncio.create_task(ask(seed)) for seed in range(4)]
    await supervise()
    for client in clients:
        client.cancel()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    assert [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)] == []
    assert answers


async def no_content(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


CONFIG = uvicorn.Config(no_content, lifespan="off", log_config=None)


async def test_who_has_just_been_accepted_is_inside(listener: socket.socket, url: str, eventually: Any) -> None:
    web = HttpServer(CONFIG, listener, lambda: None)
    serving = asyncio.create_task(web.serve())
    await eventually(lambda: web.started)
    with socket.create_connection(listener.getsockname()) as client:
        web._accept()  # and nothing else: uvicorn has not heard of it yet
        assert not web.server_state.connections
        assert not web.shut_if_empty()
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.1 204")
    await eventually(web.shut_if_empty)
    web.should_exit = True
    await serving


async def test_a_machine_out_of_file_descriptors_is_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "PAUSE_SECONDS", 0.01)
    failures = [OSError(errno.EMFILE, "Too many open files"), BlockingIOError(), ConnectionAbortedError()]

    class Scarce(socket.socket):
        def accept(self) -> Any:
            if failures:
                raise failures.pop(0)
            return super().accept()

    plain = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{plain.getsockname()[1]}"
    web = HttpServer(CONFIG, Scarce(fileno=plain.detach()), lambda: None)
    serving = asyncio.create_task(web.serve())
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(url)).status_code == 204
    assert "cannot accept connections: Too many open files" in caplog.text
    assert failures == []
    web.should_exit = True
    await serving
