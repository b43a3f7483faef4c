"""What is in flight, and since when nothing new has come."""

from __future__ import annotations

import math
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestTracker:
    """Counts the requests that ask for work; probes and listings are not among them.

    After `idle_seconds` of quiet the connections of those are closed with their answers: whoever polls for ever must
    not keep a server awake, and a connection that is closed any other way may be in use again already.
    """

    def __init__(self, idle_seconds: float = math.inf) -> None:
        self.in_flight = 0
        self._idle_seconds = idle_seconds
        self._last = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since a request came or ended; nothing is quiet while one is in flight."""
        return 0.0 if self.in_flight else time.monotonic() - self._last

    def watching(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
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

        return watched
