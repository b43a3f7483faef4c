"""What the supervisor and the template say to each other, over a socket of packets: a JSON object in each.

An order is answered with "ready" (bytes of resident memory), "pid", "refused" (why this template cannot go on, but
another one may), or "useless" (why no template is of use).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

PACKET_BYTES = 131_072
"""Longest message."""


def send(control: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Raises an OSError where nobody reads it."""
    socket.send_fds(control, [json.dumps(message).encode()], list(descriptors))


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message with its descriptors. Raises EOFError at the end, and an OSError of the socket."""
    data, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, 2)
    if not data:
        raise EOFError
    message: dict[str, Any] = json.loads(data)
    return message, descriptors
