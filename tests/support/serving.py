"""A predictor's server that runs in the event loop of the test."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from wire.listener import listen

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
    from predictor.server.drain import Lifetime
    from predictor.server.model_server import PredictorServer

if TYPE_CHECKING:
    from predictor.protocols.access import Access
    from predictor.protocols.generation_model import GenerationModel


@asynccontextmanager
async def serving(
    model: GenerationModel,
    subscriber: Callable[[Any], Any] | None = None,
    access: Access | None = None,
    *,
    nap_seconds: float = 0.0,
    admin: socket.socket | None = None,
) -> AsyncIterator[tuple[PredictorServer, str]]:
    """The server and its address. It loads once its event loop runs; `subscriber` makes one for the model, and
    `access` says who may ask; `admin` listens as the admin port."""
    listener = listen("127.0.0.1", 0)
    lifetime = Lifetime(grace_seconds=5, nap_seconds=nap_seconds)
    server = PredictorServer(model, listener, lifetime, subscriber and subscriber(model), access=access, admin=admin)
    task = asyncio.create_task(server.serve())
    try:
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Without uvicorn's waits, which add up over hundreds of tests; the graceful end has tests of its own.
        task.cancel()
        await asyncio.wait({task})
        server.rest.http_server.abort_connections()
        listener.close()
        model.stop()
