"""How many connections a server keeps, and which go first when there are more."""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol

SPARE_CONNECTIONS = 100
"""Connections beyond the limit: for health, and for telling clients that the server is full."""


class Connection(Protocol):
    """What the limit needs of a connection."""

    def abort(self) -> None: ...


class ConnectionLimit:
    """Up to `most` connections with a request at a time; requests to `free_paths`, health's, do not count.

    Connections without a request cost nobody a place: when there are SPARE_CONNECTIONS more than `most`, the one that
    has been without for longest is closed.
    """

    def __init__(self, most: int, free_paths: Container[str] = ()) -> None:
        self._most = most
        self._free_paths = free_paths
        self._idle: dict[Connection, None] = {}  # the longest idle first
        self._busy: set[Connection] = set()

    def opened(self, connection: Connection) -> None:
        self._idle[connection] = None
        if len(self._idle) + len(self._busy) > self._most + SPARE_CONNECTIONS:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.abort()

    def begun(self, connection: Connection) -> None:
        """Its next request has come."""
        self._idle.pop(connection, None)
        self._busy.add(connection)

    def ended(self, connection: Connection) -> None:
        """Its request is answered."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None

    def closed(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._busy.discard(connection)

    def takes(self, path: str) -> bool:
        """Whether a request to this path, which has begun, may be served."""
        return len(self._busy) <= self._most or path in self._free_paths
