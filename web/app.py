"""The web application: its routes, and the layers around them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from contract import Kind, ProblemError
from web.answers import PICTURE_HEADERS
from web.generation import Generate
from web.identity import IdentityMiddleware
from web.openapi import describe
from web.upstream import Upstream, make_client
from wire.guard import RequestGuard
from wire.problems import handle_http_exception, handle_problem

if TYPE_CHECKING:
    import httpx

    from web.settings import Settings


def create_app(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> ASGIApp:
    """`transport` takes the place of the network in tests."""
    client = make_client(settings, transport)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with client:
            yield

    routes = Starlette(
        routes=[
            Route("/", JSONResponse(_discovery(settings)), methods=["GET"]),
            Route("/generate", Generate(settings, Upstream(client)), methods=["POST"]),
            Route("/healthz", JSONResponse({"status": "ok"}), methods=["GET"]),
            Route("/openapi.json", JSONResponse(describe(_version(), _kinds(settings))), methods=["GET"]),
        ],
        exception_handlers={
            ProblemError: handle_problem,
            HTTPException: handle_http_exception,
            Exception: _leave_to_guard,
        },
        lifespan=lifespan,
    )
    guarded = RequestGuard(
        routes,
        body_bytes=settings.body_bytes,
        body_seconds=settings.body_seconds,
        send_seconds=settings.send_seconds,
    )
    # Around the guard, and only touching headers, so that the guard's own answers have them too.
    return IdentityMiddleware(_with_cors(guarded, settings.cors_origins))


def _with_cors(app: ASGIApp, origins: list[str]) -> ASGIApp:
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Content-Type", "X-Request-Id", "X-Request-Timeout", "traceparent", "tracestate"],
        expose_headers=["X-Request-Id", "Retry-After", *PICTURE_HEADERS],
    )


async def _leave_to_guard(_request: Request, error: Exception) -> Response:
    """Starlette would answer in plain text and raise; raising first lets the guard answer, with a problem document."""
    raise error


def _discovery(settings: Settings) -> dict[str, Any]:
    kinds = _kinds(settings)
    return {
        "name": "shangcai",
        "version": _version(),
        "models": [{"name": name, "kind": kind} for name, kind in kinds.items()],
        "default_model": next(iter(kinds)),
        "links": {"generate": "/generate", "openapi": "/openapi.json", "health": "/healthz"},
    }


def _kinds(settings: Settings) -> dict[str, Kind]:
    return {name: model.kind for name, model in settings.models.items()}


def _version() -> str:
    try:
        return version("shangcai")
    except PackageNotFoundError:  # run from a bare checkout
        return "0+unknown"
