"""The address of servers that only this machine reaches."""

from __future__ import annotations

from wire.listener import listen

HOST = "127.0.0.1"


def free_port() -> int:
    """A port of HOST on which nothing listens now. Another process may take it before it is used."""
    with listen(HOST, 0) as listener:
        port: int = listener.getsockname()[1]
        return port
