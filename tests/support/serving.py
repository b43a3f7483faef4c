"""A predictor's server that runs in the event loop of the test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from wire.listener import listen

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
    from predictor.server.model_server import PredictorServer

if TYPE_CHECKING:
    from predictor.protocols.generation_model import GenerationModel


@asynccontextmanager
async def serving(
    model: GenerationModel, subscriber: Callable[[Any], Any] | None = None
) -> AsyncIterator[tuple[PredictorServer, str]]:
    """The server and its address. It has begun to load; `subscriber` makes one for the model."""
    listener = listen("127.0.0.1", 0)
    taking = subscriber and subscriber(model)
    server = PredictorServer(model, listener, grpc_port=None, grace_seconds=5, subscriber=taking)
    task = asyncio.create_task(server._serve())
    model.start_loading(on_failure=server.leave)
    try:
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Without uvicorn's waits, which add up over hundreds of tests; the graceful end has tests of its own.
        task.cancel()
        await asyncio.wait({task})
        uvicorn = server.rest._server
        for accepting in getattr(uvicorn, "servers", ()):
            accepting.close()
        for connection in list(uvicorn.server_state.connections):
            connection.transport.abort()
        listener.close()
        model.stop()
