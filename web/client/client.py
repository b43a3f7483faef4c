"""The HTTP client for the model servers and the sink of events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2

from wire.telemetry.instrumentation import traced_transport

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings

REAP_SECONDS = 1.0
"""Between two searches for connections that nobody will use any more."""

_LOST = (AttributeError, RuntimeError, OSError)
"""What anyio (4) raises of a connection that is lost before its first use: it asks a socket for its addresses that is
closed, or is not there any more. httpcore2 passes that on as it is."""


class _Transport(httpx2.AsyncBaseTransport):
    """Takes a connection that is lost at once for one that could not be made."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._transport.handle_async_request(request)
        except _LOST as error:
            raise httpx2.ConnectError("it was lost at once", request=request) from error

    async def aclose(self) -> None:
        await self._transport.aclose()


class ModelConnections:
    """All connections of this process to the model servers and the sink; `client` is for requests over them.
    `transport` takes the place of the network in tests.
    """

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None) -> None:
        limits = httpx2.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_connections,
            keepalive_expiry=settings.keepalive_seconds,
        )
        # httpx2 (2.16) and no other, measured side by side, per second of CPU: 1,100 requests and 108,000 tokens; httpx
        # (0.28) 600 and 105,000, aiohttp (3.14) 6,200 and 620,000. Elsewhere a token costs web several times as much
        # (it is parsed, compared and framed again), and a text takes seconds of a GPU. Imports: 41, 67 and 126 ms,
        # which count when web itself starts from zero. aiohttp also closes what is idle by itself, but has no
        # transports, which the tests of web take the place of.
        # HTTP_PROXY must not apply to model servers: they are neighbours (trust_env).
        self._network = transport or httpx2.AsyncHTTPTransport(verify=settings.trust, limits=limits, trust_env=False)
        self.client = httpx2.AsyncClient(
            transport=traced_transport(_Transport(self._network)),
            timeout=httpx2.Timeout(
                connect=settings.connect_seconds,
                read=None,  # each request bounds its own silence
                write=settings.read_seconds,
                pool=settings.pool_seconds,
            ),
            # Compression would hold tokens back until a block is full (identity).
            headers={"Accept": "text/event-stream", "Accept-Encoding": "identity", "User-Agent": "shangcai-web"},
            follow_redirects=False,
            trust_env=False,
        )

    async def reap(self) -> None:
        """After a moment, close the connections that have been idle for too long, or that their server has closed.

        httpcore2 (2.16) does so only when the next request comes: after a burst each would be left in CLOSE-WAIT. A
        connection that is closed just when a request is to take it is passed over for another one.
        """
        await asyncio.sleep(REAP_SECONDS)
        if isinstance(self._network, httpx2.AsyncHTTPTransport):
            for connection in self._network._pool.connections:
                if connection.has_expired():
                    await connection.aclose()
