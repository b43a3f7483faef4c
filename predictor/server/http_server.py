"""uvicorn on a listening socket that another process may hold, too: it can stop accepting without losing a connection.

asyncio's own server accepts many connections at once, and uvicorn hears of them some turns of the event loop later.
Closing uvicorn between the two loses them (uvicorn 0.54). Here a connection is accepted and counted in one step. So
when none is counted and no more are accepted, all others are in the kernel's queue, for the next process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Until connections are accepted again after an error, which most often means that no file descriptor is left."""


class HttpServer(uvicorn.Server):
    """Serves on `listener`, and closes it in the end. Calls `on_open` when it begins to accept connections.

    A signal calls `on_signal` and does nothing else: uvicorn itself would close the listener at once, and queue-proxy
    would answer 502 to the requests that it still holds for this pod.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        on_signal: Callable[[], None],
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._on_signal = on_signal
        self._on_open = on_open
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets=[])
        finally:
            self._close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._start_accepting()
        self._on_open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close()
        await super().shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_signal()

    def accept(self) -> None:
        """Accept the next connection that waits in the listener."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has gone
        except OSError as error:
            log.error("cannot accept connections: %s", error.strerror)
            self._stop_accepting()
            self._pause = loop.call_later(PAUSE_SECONDS, self._start_accepting)
            return
        connecting = loop.create_task(self._connect(connection))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    def stop_accepting_if_unconnected(self) -> bool:
        """Stop accepting connections, unless one is open; whether it did."""
        if self._connecting or self.server_state.connections:
            return False
        self._stop_accepting()
        return True

    def abort_connections(self) -> None:
        """Close all connections at once, with what they have not sent yet."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _start_accepting(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self.accept)

    def _stop_accepting(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    def _close(self) -> None:
        if self._listener.fileno() >= 0:
            self._stop_accepting()
            self._listener.close()

    async def _connect(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
