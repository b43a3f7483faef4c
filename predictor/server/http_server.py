"""uvicorn on a listening socket that others may hold, too: it can shut its door without losing anybody.

asyncio's own server accepts many connections at once and makes them known to uvicorn some turns of the loop later;
closed in between, it loses them. Here a connection is accepted and counted in one step. So when nobody is inside and
the door is shut, everybody else is still in the kernel's queue, for the next process that holds this socket.
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
"""Before the next connection is accepted where one could not be: no file descriptor is left, most likely."""


class HttpServer(uvicorn.Server):
    """Serves on `listener` and closes it in the end; what a signal does is `on_signal`. Once it accepts, `on_open`.

    A connection that asks for nothing in its first `silent_seconds` is closed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        on_signal: Callable[[], None],
        silent_seconds: float | None = None,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._on_signal = on_signal
        self._on_open = on_open
        self._silent_seconds = silent_seconds
        self._entering: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets=[])
        finally:
            self._close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._open()
        self._on_open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close()
        await super().shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_signal()

    def shut_if_empty(self) -> bool:
        """Accept nobody any more, unless somebody is connected."""
        if self._entering or self.server_state.connections:
            return False
        self.shut()
        return True

    def shut(self) -> None:
        """Accept nobody any more."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    def _close(self) -> None:
        if self._listener.fileno() >= 0:
            self.shut()
            self._listener.close()

    def _open(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has left again
        except OSError as error:
            log.error("cannot accept connections: %s", error.strerror)
            self.shut()
            self._pause = loop.call_later(PAUSE_SECONDS, self._open)
            return
        entering = loop.create_task(self._let_in(connection))
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.connect_accepted_socket(self._protocol, connection)
        if self._silent_seconds is not None:
            loop.call_later(self._silent_seconds, _close_silent, protocol)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _close_silent(protocol: asyncio.Protocol) -> None:
    if protocol.cycle is None:  # type: ignore[attr-defined]  # uvicorn's, of the latest request
        protocol.transport.close()  # type: ignore[attr-defined]
