"""The supervisor's own HTTP responses, for a model that cannot be started."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from contract import ProblemError, problems
from scripts.local import unavailable_responder
from scripts.local.unavailable_responder import UnavailableResponder
from tests.support.waiting import wait_until
from wire.listener import listen

PROBLEM = ProblemError(problems.UNAVAILABLE, "模型 cannot be started", retry_after=3.2, phase="failed")


class RespondingServer:
    """Answers every request with PROBLEM, on a thread of its own."""

    def __init__(self) -> None:
        self.listener = listen("127.0.0.1", 0)
        self.listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.responder = UnavailableResponder(self._selector)
        self.errors: list[Exception] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _accept(self) -> None:
        self.responder.accept(self.listener, PROBLEM, time.monotonic())

    def _run(self) -> None:
        while not self._stopped:
            try:
                for key, _ in self._selector.select(0.01):
                    key.data()
                self.responder.close_expired(time.monotonic())
            except Exception as error:
                self.errors.append(error)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=60)

    def close(self) -> None:
        self._stopped = True
        self._thread.join(60)
        self.responder.close()
        self.listener.close()
        self._selector.close()


@pytest.fixture
def server() -> Iterator[RespondingServer]:
    server = RespondingServer()
    yield server
    server.close()
    assert server.errors == []
    assert len(server.responder) == 0


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_every_request_gets_the_problem(server: RespondingServer, method: str) -> None:
    answer = httpx2.request(method, server.url + "/any/path", timeout=60)
    assert answer.status_code == 503
    assert answer.reason_phrase == "Service Unavailable"
    assert answer.json() == PROBLEM.document
    assert answer.headers["retry-after"] == "4"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["connection"] == "close"


def test_a_large_body_is_discarded_and_the_connection_is_not_reset(server: RespondingServer) -> None:
    answer = httpx2.post(server.url, content=b"x" * 20_000_000, timeout=60)
    assert answer.status_code == 503


def test_a_head_that_comes_in_pieces_is_waited_for(server: RespondingServer) -> None:
    with server.connect() as connection:
        for piece in (b"GET / HTTP/1.1\r\n", b"Host: test\r\n\r", b"\n"):
            connection.sendall(piece)
            time.sleep(0.05)  # so that they are pieces
        assert connection.recv(100).startswith(b"HTTP/1.1 503 ")


def test_a_connection_with_too_long_a_head_or_closed_by_the_client_is_closed(server: RespondingServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"x" * 70_000)
        assert _ended(connection)
    server.connect().close()
    wait_until(lambda: len(server.responder) == 0)


def test_a_silent_connection_is_closed_after_a_while(server: RespondingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unavailable_responder, "CONNECTION_SECONDS", 0.2)
    with server.connect() as connection:
        assert _ended(connection)


def _ended(connection: socket.socket) -> bool:
    """Wait until the other end has closed it."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True
