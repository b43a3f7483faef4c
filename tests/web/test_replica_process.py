"""A replica of web as a process, on a Redis that others share: its shutdown, and a Redis that turns it away."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.support.waiting import wait_until
from tests.support.web.replicas import StartReplica

pytestmark = pytest.mark.slow

LIMIT = 20.0
REQUEST = {"prompt": "x"}
ASYNC = {"Prefer": "respond-async"}

Start = Callable[..., tuple["subprocess.Popen[str]", httpx2.Client]]


@pytest.fixture
def start(start_replica: StartReplica) -> Iterator[Start]:
    """Starts a replica, and gives a client of it."""
    with ExitStack() as clients:

        def start(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], httpx2.Client]:
            process, url = start_replica(*arguments, **environment)
            return process, clients.enter_context(httpx2.Client(base_url=url, trust_env=False, timeout=LIMIT))

        yield start


def submit(client: httpx2.Client) -> str:
    """The location of a new job, which the store may not take at first."""

    def sent() -> str:
        answer = client.post("/generate", json=REQUEST, headers=ASYNC)
        assert answer.status_code in (202, 503), answer.text
        return str(answer.headers.get("location", ""))

    return wait_until(sent, "a job")


def test_a_running_job_ends_after_sigterm_and_costs_no_second_attempt(
    start: Start, redis_url: str, redis_client: redis.Redis, stream: Callable[..., bytes]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(LIMIT)
        address = f"http://127.0.0.1:{upstream.getsockname()[1]}"
        process, client = start(address, redis_url, GRACE_SECONDS="20")
        job = submit(client).rpartition("/")[2]
        connection, _ = upstream.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: refused(client), "it takes no more connections")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + stream("whole"))
            connection.shutdown(socket.SHUT_WR)
            assert process.wait(LIMIT) == 0
    assert redis_client.hmget(f"shangcai:job:{job}", "end", "attempts") == ["completed", "1"]


def refused(client: httpx2.Client) -> bool:
    try:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=LIMIT):
            return False
    except ConnectionRefusedError:
        return True


class Refusing(BaseHTTPRequestHandler):
    """A model server that refuses everything, so that a job ends as soon as it is worked on."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def turning_away(port: int) -> Iterator[list[int]]:
    """A Redis in protected mode: it refuses and closes at once, so that the next write meets a closed transport."""
    turned_away: list[int] = []
    reset = struct.pack("ii", 1, 0)  # by a reset

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"-DENIED Redis is running in protected mode.\r\n")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            turned_away.append(1)

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield turned_away
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_redis_that_turns_it_away_stops_no_replica(
    start: Start, start_redis: Callable[..., Any], closed_port: int, tmp_path: Path
) -> None:
    """MagicStack/uvloop#506: the loops of a replica ended, it was healthy, and every job stayed queued."""
    with refusing() as upstream:
        with turning_away(closed_port) as turned_away:
            process, client = start(upstream, f"redis://127.0.0.1:{closed_port}/0", STORE_PATIENCE_SECONDS="1")
            wait_until(lambda: len(turned_away) >= 100, "100 connections were turned away")
            assert client.get("/healthz").status_code == 200
        start_redis(closed_port, tmp_path)
        location = submit(client)
        wait_until(lambda: client.get(location).json()["state"] == "failed", "the job was worked on")
        assert client.get(location).json()["error"]["type"] == "urn:shangcai:problem:invalid-field"
        assert client.get("/healthz").status_code == 200
    assert process.poll() is None
