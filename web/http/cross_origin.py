"""What pages of other origins may send and read, where CORS_ORIGINS names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from web.http.responses import JOB_HEADERS, PICTURE_HEADERS

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    "X-Request-Id",
    "X-Request-Timeout",
    "traceparent",
    "tracestate",
)

_SENT_BY_OPENAI = (
    "OpenAI-Beta",
    "OpenAI-Organization",
    "OpenAI-Project",
    *(
        f"X-Stainless-{name}"
        for name in (
            "Arch",
            "Custom-Poll-Interval",
            "Helper-Method",
            "Lang",
            "OS",
            "Package-Version",
            "Poll-Helper",
            "Retry-Count",
            "Runtime",
            "Runtime-Version",
            "Timeout",
        )
    ),
)
"""By its client for JavaScript."""


def with_cross_origin(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application, for those pages, too."""
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_credentials=settings.cors_credentials,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=[*_SENT, *_SENT_BY_OPENAI],
        expose_headers=["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", *JOB_HEADERS, *PICTURE_HEADERS],
    )
