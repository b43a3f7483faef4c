"""KServe's ModelServer, with the parts that its users would stumble over put right.

What is KServe's stays KServe's: the V1 and V2 routes, gRPC, metrics and the life-cycle. Ours are the listening socket
(open before anything heavy is imported), readiness and liveness that tell the truth, the OpenAI routes, the routes for
events, one form of error everywhere, and cancelling when a client leaves.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from grpc import aio
from kserve.constants.constants import MAX_GRPC_MESSAGE_LENGTH
from kserve.errors import InvalidInput, ModelNotFound
from kserve.model_server import ModelServer
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor, LoggingInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException

from contract.problems import ProblemError
from predictor.events.subscriber import EventSubscriber
from predictor.loading import systemd
from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel
from predictor.protocols.kserve_text import TextModel
from predictor.protocols.openai_models import models_router
from predictor.protocols.openai_text import text_router
from predictor.server.http_server import HttpServer
from predictor.server.request_tracker import RequestTracker
from wire.drain import LAST_SECONDS
from wire.guard import RequestGuard

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""How often it is looked whether the server may leave."""

KEEP_ALIVE_SECONDS = 5
"""How long a connection is kept for the next request where the server leaves when it is idle. More than clients keep
theirs (web: 3), or else both ends race; and not KServe's 65, for only a server without connections leaves."""

SILENT_SECONDS = 60.0
"""How long one is kept for its first request there. A client may be slow, but it must not keep the server awake."""


class PredictorServer(ModelServer):  # type: ignore[misc]  # kserve is not typed
    """Serves one model on a socket that is listening already.

    After SIGTERM it goes on serving until nothing new has come for `quiet_seconds`, because Knative's queue-proxy may
    still hold requests for it; `grace_seconds` bounds that and what has been accepted. gRPC is off without `grpc_port`.

    When nothing has come for `idle_seconds` (0 is for ever) it leaves by itself. Whoever else holds the listening
    socket finds in it all connections that came too late.
    """

    def __init__(
        self,
        model: GenerationModel,
        listener: socket.socket,
        *,
        grpc_port: int | None,
        grace_seconds: int,
        quiet_seconds: float = 0.0,
        idle_seconds: float = 0.0,
        subscriber: EventSubscriber | None = None,
    ) -> None:
        super().__init__(
            http_port=listener.getsockname()[1],
            grpc_port=grpc_port or 0,
            enable_grpc=grpc_port is not None,
            grace_period=grace_seconds,
            workers=1,
        )
        self._host = listener.getsockname()[0]
        self._quiet_seconds = quiet_seconds
        self._idle_seconds = idle_seconds or math.inf
        self._leaving = threading.Event()
        self.model = model
        self.register_model(model)
        self.repository = _OneModel(self.registered_models)
        self.subscriber = subscriber or EventSubscriber(model)
        self.rest = _RESTServer(
            model,
            self.subscriber,
            listener,
            _RestDataPlane(model, self.registered_models),
            self.repository,
            on_open=lambda: model.start_loading(on_failure=self.leave),
            on_signal=self.leave,
            idle_seconds=self._idle_seconds,
            timeout_keep_alive=KEEP_ALIVE_SECONDS if idle_seconds else self.timeout_keep_alive,
        )

    def run(self) -> None:
        """Serve until SIGTERM, then finish what was accepted; also ends when the model could not be loaded.

        In the place of `ModelServer.start`, which opens the port only when a model is ready.
        """
        for sig in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes over while it serves
            signal.signal(sig, lambda *_: self.leave())
        with asyncio.Runner(loop_factory=self.rest.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    def leave(self) -> None:
        """Finish what was accepted and return from `run`. Safe from any thread; asked twice, it does not wait."""
        if self._leaving.is_set():
            self.grace_period = 0
        self._leaving.set()

    async def _serve(self) -> None:
        grpc = await self._start_grpc() if self.enable_grpc else None
        draining = asyncio.create_task(self._drain(grpc))
        self.subscriber.start()
        try:
            await self.rest.start()
        finally:
            draining.cancel()
            self.model.stop()
            await self.subscriber.close()

    async def _drain(self, grpc: aio.Server | None) -> None:
        """Idle or asked to leave: serve on until it is quiet or the grace is over, then end what there still is."""
        while not (self._leaving.is_set() or self._leave_idle()):  # noqa: ASYNC110  threads and signal handlers set it
            await asyncio.sleep(POLL_SECONDS)
        systemd.tell_leaving()
        self.model.drain()
        begun = time.monotonic()
        traffic = self.rest.traffic
        calls = asyncio.create_task(grpc.stop(self.grace_period)) if grpc else None
        while traffic.in_flight or traffic.quiet_s < self._quiet_seconds or (calls and not calls.done()):
            if time.monotonic() - begun >= self.grace_period - LAST_SECONDS:
                break
            await asyncio.sleep(POLL_SECONDS)
        self.model.stop()
        if calls:
            await calls
        self.rest.stop()

    def _leave_idle(self) -> bool:
        """Accept nothing any more when nothing is left to do and nothing has come for long enough."""
        idle_s = min(self.rest.traffic.quiet_s, self.model.startup.ready_s)
        if idle_s < self._idle_seconds or self.subscriber.busy or not self.rest.shut_if_empty():
            return False
        log.info("leaving: nothing has come for %.0f s", idle_s)
        return True

    async def _start_grpc(self) -> aio.Server:
        """KServe's gRPC service, on the address that was asked for; KServe's own server listens on every one."""
        server = aio.server(
            ThreadPoolExecutor(self.max_threads, "grpc"),
            interceptors=(LoggingInterceptor(), ExceptionToStatusInterceptor()),
            options=[
                ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_LENGTH),
                ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_LENGTH),
                ("grpc.so_reuseport", 0),  # two servers on one port would share its requests
            ],
        )
        servicer = InferenceServicer(_DataPlane(self.model, self.registered_models), self.repository)
        add_GRPCInferenceServiceServicer_to_server(servicer, server)
        host = f"[{self._host}]" if ":" in self._host else self._host
        server.add_insecure_port(f"{host}:{self.grpc_port}")
        await server.start()
        return server


class _DataPlane(DataPlane):  # type: ignore[misc]
    """Server-wide readiness and liveness, which KServe's own always affirms."""

    def __init__(self, model: GenerationModel, registry: Any) -> None:
        super().__init__(model_registry=registry)
        self._model = model

    async def ready(self) -> bool:
        return await self._model.healthy()

    async def live(self) -> dict[str, str]:
        return {"status": "alive" if self._model.alive else "dead"}


class _RestDataPlane(_DataPlane):
    """Over HTTP, "not ready" is a problem document that says what the model is busy with."""

    async def ready(self) -> bool:
        return await self.model_ready(self._model.name)

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        if model_name != self._model.name:
            raise ModelNotFound(model_name)
        if not await self._model.healthy():
            raise self._model.not_ready()
        return True

    def decode(self, body: Any, headers: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().decode(body, headers, *args, **kwargs)
        except (InvalidInput, ProblemError):
            raise
        except Exception as error:  # KServe looks into bodies without looking at their shape first
            raise InvalidInput(f"the body cannot be read: {type(error).__name__}: {error}") from None


class _OneModel(ModelRepositoryExtension):  # type: ignore[misc]
    """KServe lets any client unload a model, which would leave a pod that looks healthy and serves nothing."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError("This server loads its one model when it starts.")

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError("This server keeps its one model for as long as it runs.")


class _RESTServer(RESTServer):  # type: ignore[misc]
    """KServe's routes and ours, on an application of our own and a given socket."""

    def __init__(
        self,
        model: GenerationModel,
        subscriber: EventSubscriber,
        listener: socket.socket,
        dataplane: DataPlane,
        repository: ModelRepositoryExtension,
        *,
        on_open: Callable[[], None],
        on_signal: Callable[[], None],
        idle_seconds: float,
        timeout_keep_alive: int,
    ) -> None:
        super().__init__(
            "", dataplane, repository, http_port=0, grace_period=LAST_SECONDS, timeout_keep_alive=timeout_keep_alive
        )
        self._model = model
        self._subscriber = subscriber
        self.traffic = RequestTracker(idle_seconds)
        # uvicorn's own way with a signal is to close the listener at once, and so to turn what queue-proxy still holds
        # for us into 502s.
        silent_seconds = None if math.isinf(idle_seconds) else SILENT_SECONDS
        self._server = HttpServer(self.config, listener, on_signal, silent_seconds, on_open)

    async def start(self) -> None:
        self.create_application()
        await self._server.serve()

    def shut_if_empty(self) -> bool:
        """Accept no connection any more, unless one is open."""
        return self._server.shut_if_empty()

    def stop(self) -> None:
        """Close the listener; what is open has LAST_SECONDS."""
        self._server.should_exit = True

    def create_application(self) -> FastAPI:
        app = FastAPI(
            title="Shangcai predictor",
            routes=self._subscriber.routes,  # the first, for one of them takes events from KServe's
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
        )
        app.include_router(models_router(self._model))
        if isinstance(self._model, TextModel):
            app.include_router(text_router(self._model))
        else:
            from predictor.protocols.openai_pictures import images_router  # and Pillow with it

            app.include_router(images_router(self._model))
        self._register_endpoints(app)
        for error in (ProblemError, *error_documents.KSERVE_ERRORS):
            app.add_exception_handler(error, error_documents.handle)
        app.add_exception_handler(HTTPException, error_documents.handle_http_exception)
        app.add_middleware(RequestGuard, respond=error_documents.respond)
        app.add_middleware(self.traffic.watching)
        self.config.app = app
        return app
