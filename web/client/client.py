"""The HTTP client for the model servers and the sink of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from web.client.connection_pool import ConnectionPool

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings


def model_client(settings: Settings, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """For all requests of this process to the model servers and the sink. `transport` takes the place of the network in
    tests."""
    # HTTP_PROXY must not apply to model servers: they are neighbours (trust_env).
    return httpx.AsyncClient(
        transport=transport or ConnectionPool(settings.trust, settings.max_connections, settings.keepalive_seconds),
        timeout=httpx.Timeout(
            connect=settings.connect_seconds,
            read=None,  # each request bounds its own silence
            write=None,  # as above
            pool=settings.pool_seconds,
        ),
        # Compression would hold tokens back until a block is full (identity).
        headers={"Accept": "text/event-stream", "Accept-Encoding": "identity", "User-Agent": "shangcai-web"},
        follow_redirects=False,
        trust_env=False,
    )
