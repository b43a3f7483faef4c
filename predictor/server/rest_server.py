"""KServe's REST server with our routes before its own, on a socket that is listening already."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from functools import partial

from fastapi import FastAPI
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException

from contract.limits import BODY_BYTES
from contract.problems import ProblemError
from predictor.events.subscriber import EventSubscriber
from predictor.protocols import error_documents
from predictor.protocols.access import Access
from predictor.protocols.kserve_text import TextModel
from predictor.protocols.openai.models import models_router
from predictor.protocols.openai.text import text_router
from predictor.server.access_check import AccessCheck
from predictor.server.data_plane import FixedModelRepository, RestDataPlane
from predictor.server.http_server import HttpServer
from predictor.server.request_tracker import RequestTracker
from wire.connections.http_protocol import HttpProtocol
from wire.drain import LAST_SECONDS
from wire.request_context import RequestContextMiddleware
from wire.request_guard import RequestGuard
from wire.telemetry.instrumentation import TracedRequests

KEEP_ALIVE_SECONDS = 100
"""How long a connection is kept for its next request: longer than Knative's queue-proxy keeps it (90 s), which would
send a request on a connection that is being closed otherwise. KServe's default is 65."""

IDLE_KEEP_ALIVE_SECONDS = 5
"""The same, for a server that ends when it is idle, because it does so only without connections. It must be more than
clients keep theirs (web: 3 s), or a request could be sent on a connection that is being closed."""

PROBED_PATHS = ("/", "/metrics", "/v2/health/live", "/v2/health/ready")


class PredictorRestServer(RESTServer):  # type: ignore[misc]  # kserve is not typed
    """Serves the model of `data_plane` and starts to load it once connections are accepted.

    `request_drain` is called on SIGTERM, and when the model cannot be loaded. With `idle_seconds` above 0, connections
    are closed early enough for the server to end when it is idle.
    """

    def __init__(
        self,
        data_plane: RestDataPlane,
        subscriber: EventSubscriber,
        listener: socket.socket,
        request_drain: Callable[[], None],
        idle_seconds: float = 0.0,
        body_bytes: int = BODY_BYTES,
        access: Access | None = None,
    ) -> None:
        super().__init__(
            "",
            data_plane,
            FixedModelRepository(data_plane.model_registry),
            http_port=0,
            grace_period=LAST_SECONDS,
            timeout_keep_alive=IDLE_KEEP_ALIVE_SECONDS if idle_seconds else KEEP_ALIVE_SECONDS,
        )
        self.config.http = partial(HttpProtocol, respond=error_documents.respond)
        self.config.ws = "none"
        self.config.proxy_headers = False  # uvicorn's would log whom a client names, where a proxy is on this machine
        self._body_bytes = body_bytes
        self._access = access or Access()
        self._model = data_plane.model
        self._subscriber = subscriber
        self.requests = RequestTracker(idle_seconds or math.inf)
        self.http_server = HttpServer(
            self.config,
            listener,
            on_signal=request_drain,
            on_open=lambda: self._model.start_loading(on_failure=request_drain),
        )

    async def start(self) -> None:
        """Serve until `stop` is called."""
        self.create_application()
        await self.http_server.serve()

    def stop_accepting_if_unconnected(self) -> bool:
        """Stop accepting connections, unless one is open; whether it did."""
        return self.http_server.stop_accepting_if_unconnected()

    def stop(self) -> None:
        """Close the listener, and after LAST_SECONDS the connections."""
        self.http_server.should_exit = True

    def create_application(self) -> FastAPI:
        """The ASGI application with all routes; also put into the server's configuration."""
        app = FastAPI(
            title="Shangcai predictor",
            routes=self._subscriber.routes,  # first, because one of them takes the events from KServe's route
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is wire.telemetry
            redirect_slashes=False,  # it would redirect to whatever host the Host header names
        )
        app.include_router(models_router(self._model))
        if isinstance(self._model, TextModel):
            app.include_router(text_router(self._model))
        else:
            from predictor.protocols.openai.pictures import images_router  # imports Pillow

            app.include_router(images_router(self._model))
        self._register_endpoints(app)
        for error in (ProblemError, *error_documents.KSERVE_ERRORS):
            app.add_exception_handler(error, error_documents.handle)
        app.add_exception_handler(HTTPException, error_documents.handle_http_exception)
        app.add_middleware(
            RequestGuard,
            admit=AccessCheck(self._access, self._subscriber.takes),
            respond=error_documents.respond,
            body_bytes=self._body_bytes,
        )
        app.add_middleware(self.requests.middleware)
        app.add_middleware(RequestContextMiddleware, quiet_paths=PROBED_PATHS)
        app.add_middleware(TracedRequests, quiet_paths=PROBED_PATHS)
        self.config.app = app
        return app
