"""The port, which is open before torch is imported: early connections wait in it, and probes are answered meanwhile."""

from __future__ import annotations

import socket

from predictor.loading import systemd
from predictor.settings import Settings
from wire.listener import listen


def open_port(settings: Settings) -> socket.socket:
    """The supervisor's listening socket, or a new one. Raises an OSError whose message is one line."""
    listener = systemd.inherited_listener() or listen(settings.host, settings.port)
    if settings.grpc_port:
        listen(settings.host, settings.grpc_port).close()  # gRPC opens it later; its own message would say less
    return listener
