"""How many requests are in flight, and for how long none has come."""

from __future__ import annotations

import math
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestTracker:
    """Counts the requests for work, which are POSTs. Probes and listings do not count.

    After `idle_seconds` without a request for work, the answers to all other requests close their connections.
    Otherwise a client that polls for ever would keep an idle server from ending. To close a connection at any other
    moment could lose a request that is on its way.
    """

    def __init__(self, idle_seconds: float = math.inf) -> None:
        self.in_flight = 0
        self._idle_seconds = idle_seconds
        self._last = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since a request for work came or ended; 0 while one is in flight."""
        return 0.0 if self.in_flight else time.monotonic() - self._last

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """ASGI middleware that counts the requests to `app`."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def closing_send(message: Message) -> None:
                if message["type"] == "http.response.start" and self.quiet_s >= self._idle_seconds:
                    MutableHeaders(scope=message)["connection"] = "close"
                await send(message)

            if scope["type"] != "http" or scope["method"] != "POST":
                await app(scope, receive, closing_send)
                return
            self.in_flight += 1
            try:
                await app(scope, receive, send)
            finally:
                self.in_flight -= 1
                self._last = time.monotonic()

        return counted
