"""An idle server ends: only without connections, and without losing a request that comes at that moment."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn

from contract.cloudevents import REQUESTED
from predictor.protocols.kserve_text import TextModel
from predictor.server import http_server, rest_server
from predictor.server.drain import Lifetime
from predictor.server.http_server import HttpServer
from predictor.server.model_server import PredictorServer
from tests.support.waiting import eventually
from wire.connections import http_protocol
from wire.listener import listen

CHAT = {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}
ROUTE = "/openai/v1/chat/completions"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": REQUESTED}


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_server, "IDLE_KEEP_ALIVE_SECONDS", 0.2)
    monkeypatch.setattr(http_protocol, "SILENT_SECONDS", 1)


@dataclass
class Serving:
    engine: Any
    server: PredictorServer
    lifetime: Lifetime
    task: asyncio.Task[None]

    def shorten_idle_time(self) -> None:
        """Have it end soon, if it may. A server that is made so could end before the test has sent its request."""
        self.lifetime.idle_seconds = 0.05


@pytest.fixture
async def listener() -> AsyncIterator[socket.socket]:
    """The supervisor's socket."""
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
            lifetime = Lifetime(grace_seconds=5, idle_seconds=idle_seconds)
            predictor = PredictorServer(model, listener.dup(), lifetime)
            task = asyncio.create_task(predictor.serve())

            async def end() -> None:
                task.cancel()
                await asyncio.wait({task})

            stack.push_async_callback(end)
            return Serving(own, predictor, lifetime, task)

        yield start


async def test_a_server_without_requests_ends(serve: Callable[..., Serving]) -> None:
    serving = serve(0.05)
    await asyncio.wait_for(serving.task, 20)
    assert serving.engine.stopped


async def test_it_does_not_end_before_it_is_ready(serve: Callable[..., Serving]) -> None:
    serving = serve(0.01, load=False)
    await asyncio.sleep(0.5)  # many times as long as it may be idle, in which nothing is to happen
    assert not serving.task.done()
    serving.engine.load_gate.set()
    await asyncio.wait_for(serving.task, 20)


async def test_it_does_not_end_before_who_was_told_to_come_again(serve: Callable[..., Serving], url: str) -> None:
    serving = serve(0.01, load=False)
    serving.engine.enqueue("spring", " rain")
    async with httpx2.AsyncClient(base_url=url, timeout=10, headers={"Connection": "close"}) as client:
        refused = await client.post(ROUTE, json=CHAT)
        assert refused.status_code == 503
        serving.engine.load_gate.set()
        await asyncio.sleep(float(refused.headers["Retry-After"]))  # as it was told
        assert (await client.post(ROUTE, json=CHAT)).status_code == 200
    assert serving.engine.generations
    await asyncio.wait_for(serving.task, 20)


async def test_a_late_connection_is_served_by_the_next_server(serve: Callable[..., Serving], url: str) -> None:
    await asyncio.wait_for(serve(0.01).task, 20)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        asking = asyncio.create_task(client.get("/v2/health/live"))
        await asyncio.sleep(0.2)  # it is connected, and waits
        assert not asking.done()
        serve(10)
        assert (await asking).status_code == 200


async def test_a_generation_keeps_it_awake(serve: Callable[..., Serving], url: str) -> None:
    serving, gate = serve(60), asyncio.Event()
    serving.engine.enqueue("spring", gate, " rain")
    await eventually(lambda: serving.server.model.startup.ready)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        asking = asyncio.create_task(client.post(ROUTE, json=CHAT))
        await eventually(lambda: serving.engine.generations)
        serving.shorten_idle_time()
        await asyncio.sleep(0.5)
        gate.set()
        assert (await asking).json()["choices"][0]["message"]["content"] == "spring rain"
    await asyncio.wait_for(serving.task, 20)


async def test_a_generation_for_an_event_that_was_given_up_keeps_it_awake(
    serve: Callable[..., Serving], url: str
) -> None:
    serving, gate = serve(60), asyncio.Event()
    serving.engine.enqueue("spring", gate)
    await eventually(lambda: serving.server.model.startup.ready)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        delivery = asyncio.create_task(client.post("/", json={"prompt": "moon"}, headers=EVENT))
        await eventually(lambda: serving.engine.generations)
        delivery.cancel()
    serving.shorten_idle_time()
    await asyncio.sleep(0.7)  # the connection is closed, and nothing else is asked
    assert not serving.task.done()
    gate.set()
    await asyncio.wait_for(serving.task, 20)


async def test_a_connection_that_may_be_used_again_keeps_it_awake(
    serve: Callable[..., Serving], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_server, "IDLE_KEEP_ALIVE_SECONDS", 3)
    serving = serve(60)
    serving.engine.enqueue("spring")
    await eventually(lambda: serving.server.model.startup.ready)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        await client.post(ROUTE, json=CHAT)
        serving.shorten_idle_time()
        await asyncio.sleep(0.5)
        assert not serving.task.done()
        await asyncio.wait_for(serving.task, 20)


async def test_polls_on_one_connection_do_not_keep_it_awake(serve: Callable[..., Serving], url: str) -> None:
    serving = serve(0.5)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        while not serving.task.done():
            polling = asyncio.create_task(client.get("/v2/health/ready"))
            await asyncio.wait({polling, serving.task}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.1)  # less than the server keeps a connection
        polling.cancel()


async def test_connections_of_polls_are_kept_while_it_is_busy(serve: Callable[..., Serving], url: str) -> None:
    serve(30)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.get("/v2/health/live")
    assert "connection" not in answer.headers


async def test_a_connection_without_a_request_does_not_keep_it_awake(serve: Callable[..., Serving], url: str) -> None:
    serving = serve(0.05)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
        await asyncio.wait_for(serving.task, 20)


async def test_a_header_that_never_ends_does_not_keep_it_awake(
    serve: Callable[..., Serving], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.3)
    serving = serve(0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"

    async def drip() -> None:
        while not serving.task.done():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    await asyncio.wait_for(serving.task, 20)
    await dripping
    writer.close()


@pytest.mark.slow
async def test_no_request_is_lost_while_servers_end_all_the_time(serve: Callable[..., Serving], url: str) -> None:
    answers = ends = 0

    async def supervise() -> None:
        nonlocal ends
        while True:
            serving = serve(0.02)
            for number in range(1000):
                serving.engine.enqueue(f"text {number}")
            # Not `await serving.task`: the cancellation at the end must not reach uvicorn, whose last turns are a
            # `wait_for` of Python 3.11, which forgets a cancellation.
            await asyncio.wait({serving.task})
            serving.task.result()
            ends += 1

    async def ask(seed: int) -> None:
        nonlocal answers
        chance = random.Random(seed)
        headers = {"connection": "close"} if seed % 2 else {}
        # Clients must keep connections for less time than the server, or both ends race.
        limits = httpx2.Limits(keepalive_expiry=rest_server.IDLE_KEEP_ALIVE_SECONDS / 10)
        async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            while answers < 20 or ends < 10:
                answer = await client.get("/v2/health/live", headers=headers)
                assert answer.status_code == 200
                answer = await client.post(ROUTE, json=CHAT, headers=headers)
                assert answer.status_code in (200, 503), answer.text
                answers += 1
                await asyncio.sleep(chance.uniform(0, 0.6))

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        supervisor = group.create_task(supervise())
        await asyncio.gather(*(ask(seed) for seed in range(4)))
        supervisor.cancel()


async def no_content(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


CONFIG = uvicorn.Config(no_content, lifespan="off", log_config=None)


async def test_a_connection_counts_once_it_is_accepted(listener: socket.socket, url: str) -> None:
    web = HttpServer(CONFIG, listener, lambda: None)
    serving = asyncio.create_task(web.serve())
    await eventually(lambda: web.started)
    with socket.create_connection(listener.getsockname()) as client:
        web.accept()  # and uvicorn does not know the connection yet
        assert not web.server_state.connections
        assert not web.stop_accepting_if_unconnected()
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.1 204")
    await eventually(web.stop_accepting_if_unconnected)
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
    async with httpx2.AsyncClient(timeout=60) as client:
        assert (await client.get(url)).status_code == 204
    assert "cannot accept connections: Too many open files" in caplog.text
    assert failures == []
    web.should_exit = True
    await serving
