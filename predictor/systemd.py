"""systemd's protocols between the predictor and its supervisor, which is scripts/run or a socket-activated unit.

The supervisor passes a listening socket (LISTEN_FDS): connections wait in it while no predictor runs. The predictor
reports its phases to the socket NOTIFY_SOCKET; see sd_listen_fds(3) and sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

LISTEN_FD = 3
"""The descriptor of the first socket that is passed on."""


def inherited_listener() -> socket.socket | None:
    """The listening socket that the supervisor passed, or None. Raises OSError when it passed several."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    if count != "1":
        raise OSError(f"LISTEN_FDS is {count}; one socket is listened on")
    return adopted_listener(LISTEN_FD)


def adopted_listener(descriptor: int) -> socket.socket:
    """The socket of a descriptor that this process was given, and which is its own from now on."""
    listener = socket.socket(fileno=descriptor)
    listener.set_inheritable(False)
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def notify_phase(phase: str) -> None:
    """The start has entered this phase."""
    _notify(f"STATUS={phase}")


def notify_slots(slots: int) -> None:
    """As many requests run at once; a variable of our own."""
    _notify(f"X_SLOTS={slots}")


def notify_ready() -> None:
    """A request sent now is answered."""
    _notify("READY=1")


def notify_stopping() -> None:
    """The drain has begun."""
    _notify("STOPPING=1")


def notify_failure(reason: str) -> None:
    """The start has failed."""
    _notify("STATUS=" + reason.replace("\n", " "), "ERRNO=1")


def _notify(*fields: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):  # the supervisor has gone
        sender.setblocking(False)
        sender.sendto("\n".join(fields).encode(), address)
