"""ASGI middleware: requests for work need the token, and only who has it may say whose request it is."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from predictor.protocols.access import Access
from wire.request_context import CALLER_HEADER


class AccessMiddleware:
    """Health, readiness, metrics and what models there are stay open: all that is no POST. `is_delivery` says which
    requests bring events, each of which is checked by itself."""

    def __init__(self, app: ASGIApp, access: Access, is_delivery: Callable[[Scope], bool]) -> None:
        self._app = app
        self._access = access
        self._is_delivery = is_delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] == "POST" and not self._is_delivery(scope):
                self._access.check(Headers(scope=scope))
            if not self._access.has_token(Headers(scope=scope)):
                del MutableHeaders(scope=scope)[CALLER_HEADER]
        await self._app(scope, receive, send)
