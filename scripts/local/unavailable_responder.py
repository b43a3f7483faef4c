"""Answers HTTP requests with a problem document, in the place of a model that cannot be started."""

from __future__ import annotations

import json
import selectors
import socket
from contextlib import suppress
from http import HTTPStatus

from contract import problems
from contract.problems import ProblemError

CONNECTION_SECONDS = 5.0
"""Longest that a connection is open, for its request to come and for the response to be read."""

MAX_CONNECTIONS = 100
"""Most connections at a time; others wait in the kernel."""

HEAD_BYTES = 65_536
"""Longest request line and headers, all together."""

_END_OF_HEAD = b"\r\n\r\n"


class UnavailableResponder:
    """The open connections. The caller runs the selector, whose keys hold what is to be called, and closes it."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._connections: dict[socket.socket, _Connection] = {}

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def full(self) -> bool:
        return len(self) >= MAX_CONNECTIONS

    def accept(self, listener: socket.socket, problem: ProblemError, now: float) -> None:
        """Accept a connection and answer its request; `now` is in seconds of time.monotonic."""
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client has closed it, or there are too many open files
        client.setblocking(False)
        self._connections[client] = _Connection(client, problem, now + CONNECTION_SECONDS)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._read(client))

    def close_expired(self, now: float) -> None:
        for client in [one for one, connection in self._connections.items() if now >= connection.ends_at]:
            self._close(client)

    def close(self) -> None:
        for client in list(self._connections):
            self._close(client)

    def _read(self, client: socket.socket) -> None:
        if self._connections[client].read():
            self._close(client)

    def _close(self, client: socket.socket) -> None:
        del self._connections[client]
        self._selector.unregister(client)
        client.close()


class _Connection:
    def __init__(self, client: socket.socket, problem: ProblemError, ends_at: float) -> None:
        self.ends_at = ends_at
        self._client = client
        self._problem = problem
        self._head: bytes | None = b""
        """None once it is complete."""

    def read(self) -> bool:
        """Answer once the request's head has come, and discard the rest; whether the connection is to be closed.

        A connection that is closed over unread data is reset, and the reset may destroy the response on its way.
        """
        try:
            data = self._client.recv(HEAD_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if not data:
            return True
        if self._head is not None:
            self._head += data
            if len(self._head) > HEAD_BYTES:
                return True
            if _END_OF_HEAD in self._head:
                self._head = None
                with suppress(OSError):
                    self._client.sendall(encode_response(self._problem))
                    self._client.shutdown(socket.SHUT_WR)
        return False


def encode_response(problem: ProblemError) -> bytes:
    """A whole HTTP response, after which the connection is closed."""
    body = json.dumps(problem.document, ensure_ascii=False).encode()
    headers = {
        "Content-Type": problems.MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **problem.headers,
    }
    status = HTTPStatus(problem.kind.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + _END_OF_HEAD + body
