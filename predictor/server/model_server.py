"""KServe's ModelServer around one model, from the first connection to the end of its drain.

KServe provides the V1 and V2 routes, gRPC and metrics. Ours are the listening socket, which is open before torch is
imported, a readiness and liveness that are the model's, the routes for OpenAI's clients and for events, problem
documents for all errors, the cancellation of a request whose client has gone, and the drain.
"""

from __future__ import annotations

import asyncio
import signal
import socket

from kserve.model_server import ModelServer

from contract.limits import BODY_BYTES, IMAGE_CHARS
from predictor.events.subscriber import EventSubscriber
from predictor.protocols.access import Access
from predictor.protocols.generation_model import GenerationModel
from predictor.server.admin_server import AdminServer
from predictor.server.data_plane import GrpcDataPlane, RestDataPlane
from predictor.server.drain import Lifetime, ServerDrain
from predictor.server.grpc_server import start_grpc_server
from predictor.server.rest_server import PredictorRestServer


class PredictorServer(ModelServer):  # type: ignore[misc]  # kserve is not typed
    """Serves `model` on a `listener` that is listening already, for a `lifetime`. No gRPC without `grpc_port`. A body
    and a message of gRPC have at most `body_bytes`, and where the model paints, room for a picture and its mask.
    `access` says who may ask; everybody by default. `admin` listens for who may put the model to sleep."""

    def __init__(
        self,
        model: GenerationModel,
        listener: socket.socket,
        lifetime: Lifetime,
        subscriber: EventSubscriber | None = None,
        grpc_port: int | None = None,
        body_bytes: int = BODY_BYTES,
        access: Access | None = None,
        admin: socket.socket | None = None,
    ) -> None:
        self._access = access or Access()
        if model.kind == "image":
            body_bytes += 2 * IMAGE_CHARS
        self._body_bytes = body_bytes
        self._host, port, *_ = listener.getsockname()
        super().__init__(http_port=port, grpc_port=grpc_port or 0, enable_grpc=grpc_port is not None, workers=1)
        self.model = model
        self.register_model(model)
        self.subscriber = subscriber or EventSubscriber(model, access=self._access)
        self.rest = PredictorRestServer(
            RestDataPlane(model, self.registered_models),
            self.subscriber,
            listener,
            self.request_drain,
            lifetime.idle_seconds,
            body_bytes,
            self._access,
        )
        self._lifetime = lifetime
        self._drain = ServerDrain(model, self.rest, self.subscriber, lifetime)
        self._admin = AdminServer(model, admin) if admin else None

    def run(self) -> None:
        """Serve until SIGTERM and the drain after it; also ends when the model cannot be loaded.

        Not `ModelServer.start`: it needs a loaded model before it opens the port, KServe 0.21.
        """
        for sig in (signal.SIGINT, signal.SIGTERM):  # uvicorn handles them while it serves
            signal.signal(sig, lambda *_: self.request_drain())
        with asyncio.Runner(loop_factory=self.rest.config.get_loop_factory()) as runner:
            runner.run(self.serve())

    def request_drain(self) -> None:
        """Finish what was accepted and return from `run`; called twice, do not finish it. Safe from any thread."""
        self._drain.request()

    async def serve(self) -> None:
        """`run` for a running event loop; handles signals only while the port is open."""
        grpc = None
        if self.enable_grpc:
            data_plane = GrpcDataPlane(self.model, self.registered_models, self._access)
            grpc = await start_grpc_server(self._host, self.grpc_port, data_plane, self.max_threads, self._body_bytes)
        beside = [asyncio.create_task(self._drain.run(grpc))]
        if self._lifetime.nap_seconds:
            nap = self.model.sleeper.nap(self._lifetime.nap_seconds, lambda: self.model.startup.ready)
            beside.append(asyncio.create_task(nap))
        admin = asyncio.create_task(self._admin.serve()) if self._admin else None
        self.subscriber.start()
        try:
            await self.rest.start()
        finally:
            for task in beside:
                task.cancel()
            self.model.stop()
            await self.subscriber.close()
            if self._admin and admin:
                self._admin.should_exit = True
                await admin
