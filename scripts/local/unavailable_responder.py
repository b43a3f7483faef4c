"""Answers connections with a problem document, in the place of a server that cannot be started."""

from __future__ import annotations

import json
import selectors
import socket
from contextlib import suppress
from http import HTTPStatus

from contract import problems
from contract.problems import ProblemError

SECONDS = 5.0
"""Longest that a connection is open: for its request to come, and for the answer to be read."""

MOST = 100
"""Most connections at a time; others wait."""

HEAD_BYTES = 65_536
_END_OF_HEAD = b"\r\n\r\n"


class Refusals:
    """The connections that are being answered."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._open: dict[socket.socket, _Refusal] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, listener: socket.socket, problem: ProblemError, now: float) -> None:
        """Accept a connection and answer what it asks for."""
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it has left again, or there are too many of them
        connection.setblocking(False)
        self._open[connection] = _Refusal(connection, problem, now + SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(connection))

    def tidy(self, now: float) -> None:
        """Close those whose time is over."""
        for connection in [one for one, refusal in self._open.items() if now >= refusal.ends_at]:
            self._close(connection)

    def close(self) -> None:
        for connection in list(self._open):
            self._close(connection)

    def _read(self, connection: socket.socket) -> None:
        if self._open[connection].read():
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._open[connection]
        self._selector.unregister(connection)
        connection.close()


class _Refusal:
    def __init__(self, connection: socket.socket, problem: ProblemError, ends_at: float) -> None:
        self.ends_at = ends_at
        self._connection = connection
        self._problem = problem
        self._head: bytes | None = b""

    def read(self) -> bool:
        """Answer once the head of the request is there, and throw the rest away; whether that was all.

        A connection that is closed over unread data is reset, and the reset destroys the answer on its way.
        """
        try:
            data = self._connection.recv(HEAD_BYTES)
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
                    self._connection.sendall(response(self._problem))
                    self._connection.shutdown(socket.SHUT_WR)
        return False


def response(problem: ProblemError) -> bytes:
    """A whole HTTP answer."""
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
