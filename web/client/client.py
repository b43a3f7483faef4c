"""The HTTP client for the model servers and the sink of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import anyio
import httpx2

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings

REAP_SECONDS = 1.0
"""Between two searches for connections that nobody will use any more."""

_LOST = (AttributeError, RuntimeError, OSError)
"""What anyio (4) raises of a connection that is lost before its first use: it asks a socket for its addresses that is
closed, or is not there any more. httpcore passes that on as it is."""


class _LimitedTransport(httpx2.AsyncBaseTransport):
    """Lets no more requests at a time to a transport than its pool has connections; further ones wait here.

    In httpcore's own queue (1.0.9) a request that is cancelled just when it is given a new connection leaves that
    connection behind, never connected and taken for ever: https://github.com/encode/httpcore/issues/1093.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport, connections: int) -> None:
        self._transport = transport
        self._free = asyncio.Semaphore(connections)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            with anyio.fail_after(request.extensions["timeout"]["pool"]):
                await self._free.acquire()
        except TimeoutError:
            raise httpx2.PoolTimeout("no connection is free", request=request) from None
        try:
            response = await self._transport.handle_async_request(request)
        except _LOST as error:
            self._free.release()
            raise httpx2.ConnectError("it was lost at once", request=request) from error
        except BaseException:
            self._free.release()
            raise
        if response.is_closed:  # of a transport that answers as a whole: nobody closes its stream any more
            self._free.release()
            return response
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _ReleasingStream(response.stream, self._free.release)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


class _ReleasingStream(httpx2.AsyncByteStream):
    """The body of an answer; `release` is called once, when it is closed."""

    def __init__(self, stream: httpx2.AsyncByteStream, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        release, self._release = self._release, None
        try:
            await self._stream.aclose()
        finally:
            if release is not None:
                release()


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
            transport=_LimitedTransport(self._network, settings.max_connections),
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

        httpcore (1.0.9) does so only when the next request comes: after a burst each would be left in CLOSE-WAIT. A
        connection that is closed just when a request is to take it is passed over for another one.
        """
        await asyncio.sleep(REAP_SECONDS)
        if isinstance(self._network, httpx2.AsyncHTTPTransport):
            for connection in self._network._pool.connections:
                if connection.has_expired():
                    await connection.aclose()
