"""The listening socket. Opened before the server starts: an error is one line, and early connections wait."""

from __future__ import annotations

import errno
import socket

BACKLOG = 2048
"""Connections that may wait to be accepted."""

UNSENT_BYTES = 131_072
"""Most that the kernel takes of a connection before it is sent. Without it, a client that reads nothing keeps megabytes
of the kernel's memory, which counts as the container's."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; an OSError whose message is one clear line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Connections inherit it; asyncio sets it only on sockets that it makes itself. Without it, Nagle's algorithm
        # holds each piece of a stream back until the piece before is acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} on {host} is in use") from None
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
