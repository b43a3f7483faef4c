"""What a request over HTTP needs to be admitted: the token, if it is for work."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

from predictor.protocols.access import Access, caller_of
from wire.request_context import CALLER_HEADER


class AccessCheck:
    """Called with a request's scope, before its body is read. Raises UNAUTHORIZED, and takes the caller's name away
    from whoever has no token.

    Health, readiness, metrics and what models there are stay open: all that is no POST. `is_delivery` says which
    requests bring events, each of which is checked by itself.
    """

    def __init__(self, access: Access, is_delivery: Callable[[Scope], bool]) -> None:
        self._access = access
        self._is_delivery = is_delivery

    async def __call__(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["method"] == "POST" and not self._is_delivery(scope):
            self._access.check(headers)
        if not self._access.has_token(headers):
            del MutableHeaders(scope=scope)[CALLER_HEADER]
        elif CALLER_HEADER in headers:
            scope["state"]["caller"] = caller_of(headers)  # for the log
