"""The port, which is open before torch is imported: early connections wait in it, and probes are answered meanwhile."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from predictor import systemd
from predictor.settings import Settings
from wire.listener import listen


@dataclass(frozen=True)
class Ports:
    """Listening sockets: the server's, and that of the admin port where it is wanted."""

    listener: socket.socket
    admin: socket.socket | None


def open_ports(settings: Settings, listener: socket.socket | None = None) -> Ports:
    """With this `listener`, or the supervisor's listening socket, or a new one. Raises an OSError whose message is one
    line."""
    listener = listener or systemd.inherited_listener() or listen(settings.host, settings.port)
    if settings.grpc_port:
        listen(settings.host, settings.grpc_port).close()  # gRPC opens it later; its own message would say less
    return Ports(listener, listen("127.0.0.1", settings.admin_port) if settings.admin_port else None)
