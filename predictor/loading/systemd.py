"""What whoever starts the predictor gives to it and is told by it, as systemd does it; scripts/run does the same.

LISTEN_FDS hands over a socket that listens already: connections wait in it while no predictor runs. NOTIFY_SOCKET is
told how far the start is. A unit of systemd that is activated by its socket works the same way.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_LISTEN_FD = 3


def inherited_listener() -> socket.socket | None:
    """The listening socket that was handed to this process, if one was."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    if count != "1":
        raise OSError(f"LISTEN_FDS is {count}; one socket is listened on")
    listener = socket.socket(fileno=_LISTEN_FD)
    listener.set_inheritable(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def tell_phase(phase: str) -> None:
    """How far the start is."""
    _tell(f"STATUS={phase}")


def tell_ready() -> None:
    """What is sent now is answered."""
    _tell("READY=1")


def tell_leaving() -> None:
    """No connection is accepted any more."""
    _tell("STOPPING=1")


def tell_failure(why: str) -> None:
    """The start has come to nothing."""
    _tell("STATUS=" + why.replace("\n", " "), "ERRNO=1")


def _tell(*fields: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):  # the one who listened has gone
        sender.setblocking(False)
        sender.sendto("\n".join(fields).encode(), address)
