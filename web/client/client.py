"""The HTTP client that speaks to the model servers and the sink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import httpx

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings


class _Bounded(httpx.AsyncBaseTransport):
    """Lets no more than `places` requests at a time to a transport whose pool has as many.

    Those that wait, wait here. In httpcore's own queue a request that is cancelled just when it has got a new
    connection leaves it there: never connected, and taken for ever.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, places: int) -> None:
        self._transport = transport
        self._places = asyncio.Semaphore(places)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            with anyio.fail_after(request.extensions["timeout"]["pool"]):
                await self._places.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection is free", request=request) from None
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException:
            self._places.release()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Placed(response.stream, self._places)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Placed(httpx.AsyncByteStream):
    """The body of an answer, with which a place becomes free."""

    def __init__(self, stream: httpx.AsyncByteStream, places: asyncio.Semaphore) -> None:
        self._stream = stream
        self._places: asyncio.Semaphore | None = places

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        places, self._places = self._places, None
        try:
            await self._stream.aclose()
        finally:
            if places is not None:
                places.release()


def make_client(settings: Settings, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    limits = httpx.Limits(
        max_connections=settings.max_connections,
        max_keepalive_connections=settings.max_connections,
        keepalive_expiry=settings.keepalive_seconds,
    )
    return httpx.AsyncClient(
        transport=_Bounded(
            # A proxy variable of the machine must not catch what is addressed to a neighbour.
            transport or httpx.AsyncHTTPTransport(verify=settings.trust, limits=limits, trust_env=False),
            settings.max_connections,
        ),
        timeout=httpx.Timeout(
            connect=settings.connect_seconds,
            read=None,  # each has a bound of its own
            write=settings.read_seconds,
            pool=settings.pool_seconds,
        ),
        # Compression would hold tokens back until a block is full.
        headers={"Accept": "text/event-stream", "Accept-Encoding": "identity", "User-Agent": "shangcai-web"},
        follow_redirects=False,
        trust_env=False,
    )
