"""The way to the model servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from web.calls import Call, Event
from web.exchange import Exchange

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings


class Upstream:
    """The model servers, by way of one pool of connections."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def open(
        self, url: str, call: Call[Event], headers: dict[str, str], deadline: float
    ) -> AsyncIterator[Exchange[Event]]:
        """Make the call and wait until it is accepted, which is not yet running. Leaving the context cancels it.

        `deadline` is on the clock of the event loop. Whatever goes wrong is a ProblemError.
        """
        exchange = Exchange(self._client, url, call, headers, deadline)
        try:
            await exchange.accepted()
            yield exchange
        finally:
            await exchange.close()


def make_client(settings: Settings, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        limits=httpx.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_connections,
            keepalive_expiry=settings.keepalive_seconds,
        ),
        timeout=httpx.Timeout(
            connect=settings.connect_seconds,
            read=settings.read_seconds,
            write=settings.read_seconds,
            pool=settings.pool_seconds,
        ),
        # Compression would hold tokens back until a block is full.
        headers={"Accept": "text/event-stream", "Accept-Encoding": "identity", "User-Agent": "shangcai-web"},
        follow_redirects=False,
        trust_env=False,  # a proxy variable of the machine must not catch what is addressed to a neighbour
    )
