"""What is in flight, and since when nothing new has come."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Receive, Scope, Send


class Traffic:
    """Counts the requests that ask for work; probes and listings are not among them."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._last = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since a request came or ended; nothing is quiet while one is in flight."""
        return 0.0 if self.in_flight else time.monotonic() - self._last

    def watching(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                await app(scope, receive, send)
                return
            self.in_flight += 1
            try:
                await app(scope, receive, send)
            finally:
                self.in_flight -= 1
                self._last = time.monotonic()

        return watched
