"""The connections of the predictor."""

from __future__ import annotations

import socket

from wire.listener import listen


def test_the_pieces_of_a_stream_do_not_wait_for_one_another() -> None:
    """Nagle's algorithm would hold each back until the client has acknowledged the one before."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
