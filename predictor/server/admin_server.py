"""The admin port: sleeping, waking, and what vLLM and KServe's V2 protocol call it. For this machine only.

Whoever reaches a serving port must not be able to put its model to sleep, so these routes are on a port of their own,
which listens on 127.0.0.1 and is off by default.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import get_args

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from contract import problems
from contract.problems import FieldError, ProblemError, field_problem
from predictor.engine.base import SleepLevel
from predictor.protocols import error_documents
from predictor.protocols.generation_model import GenerationModel
from predictor.server.http_server import HttpServer
from wire.connections.http_protocol import HttpProtocol
from wire.drain import LAST_SECONDS
from wire.request_context import RequestContextMiddleware
from wire.request_guard import RequestGuard

_LEVELS: dict[str, SleepLevel] = {str(level): level for level in get_args(SleepLevel)}
_MODES = ("wait", "abort")


class AdminServer(HttpServer):
    """Serves the admin routes of a model on `listener`. Signals are the business of the other server."""

    def __init__(self, model: GenerationModel, listener: socket.socket) -> None:
        config = uvicorn.Config(
            admin_application(model),
            http=partial(HttpProtocol, respond=error_documents.respond),  # type: ignore[arg-type]  # it is called only
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(LAST_SECONDS),
        )
        super().__init__(config, listener, on_signal=lambda: None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminRoutes:
    """Each answers when what it asks for is done."""

    def __init__(self, model: GenerationModel) -> None:
        self._model = model

    async def sleep(self, http_request: Request) -> Response:
        """vLLM's, but for its default: `mode=wait` finishes what was accepted, `mode=abort` ends it with a problem.
        Without a `level`, that of --sleep-level."""
        given = _checked(http_request.query_params, {"level": tuple(_LEVELS), "mode": _MODES})
        self._check_ready()
        level = _LEVELS[given["level"]] if "level" in given else None
        await self._model.sleeper.sleep(level, abort=given.get("mode") == "abort")
        return Response()

    async def wake_up(self, http_request: Request) -> Response:
        _checked(http_request.query_params, {})
        self._check_ready()
        await self._model.sleeper.wake_up()
        return Response()

    async def is_sleeping(self, http_request: Request) -> Response:
        _checked(http_request.query_params, {})
        return JSONResponse({"is_sleeping": self._model.sleeper.sleeping is not None})

    async def unload(self, http_request: Request) -> Response:
        """KServe's: the model sleeps at level 2, and the next request loads it again."""
        name = self._name_in(http_request)
        await self._model.sleeper.sleep(2)
        return JSONResponse({"name": name, "unload": True})

    async def load(self, http_request: Request) -> Response:
        name = self._name_in(http_request)
        await self._model.sleeper.wake_up()
        return JSONResponse({"name": name, "load": True})

    def _name_in(self, http_request: Request) -> str:
        name = str(http_request.path_params["name"])
        self._model.check_name(name)
        self._check_ready()
        return name

    def _check_ready(self) -> None:
        if not self._model.ready:
            raise self._model.not_ready()


def admin_application(model: GenerationModel) -> Starlette:
    """The ASGI application of the admin port."""
    routes = AdminRoutes(model)
    return Starlette(
        routes=[
            Route("/sleep", routes.sleep, methods=["POST"]),
            Route("/wake_up", routes.wake_up, methods=["POST"]),
            Route("/is_sleeping", routes.is_sleeping),
            Route("/v2/repository/models/{name}/load", routes.load, methods=["POST"]),
            Route("/v2/repository/models/{name}/unload", routes.unload, methods=["POST"]),
        ],
        middleware=[
            Middleware(RequestContextMiddleware, quiet_paths=("/is_sleeping",)),
            Middleware(RequestGuard, admit=_refuse_pages, respond=error_documents.respond),
        ],
        exception_handlers={
            ProblemError: error_documents.handle,
            HTTPException: error_documents.handle_http_exception,
        },
    )


async def _refuse_pages(scope: Scope) -> None:
    """A browser on this machine reaches the port, too, for any site's page; it says so with each POST."""
    if any(name == b"origin" for name, _ in scope["headers"]):
        raise ProblemError(problems.FORBIDDEN, "Pages of browsers may not ask this port.")


def _checked(given: QueryParams, allowed: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    """The query's fields. Raises a ProblemError that names each one that is unknown, comes twice, or has no allowed
    value."""
    errors = []
    for field, value in given.items():
        if len(given.getlist(field)) > 1:
            errors.append(FieldError(field=field[:64], detail="may be given once"))
        elif field not in allowed:
            names = f"allowed are {', '.join(allowed)}" if allowed else "none is allowed"
            errors.append(FieldError(field=field[:64], detail=f"unknown field; {names}"))
        elif value not in allowed[field]:
            errors.append(FieldError(field=field, detail=f"input should be {' or '.join(allowed[field])}"))
    if errors:
        raise field_problem(errors)
    return given
