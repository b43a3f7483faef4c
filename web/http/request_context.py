"""Who asked, and when: the outermost middleware names, times and logs every request."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

REQUEST_ID_CHARS = 128
"""Longest X-Request-Id that is taken from a client; anything else is replaced."""

TRACE_CHARS = 512
"""Longest traceparent or tracestate that is passed on (W3C asks for at least 512)."""

_QUIET_PATHS = ("/healthz",)  # asked every few seconds, for ever


@dataclass(frozen=True)
class RequestContext:
    """One request: its arrival on the `time.perf_counter` clock and the headers that follow it upstream."""

    arrived: float
    request_id: str
    trace: dict[str, str]

    @classmethod
    def of(cls, scope: Scope) -> RequestContext:
        identity = scope["state"]["identity"]
        assert isinstance(identity, cls)
        return identity

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Request-Id": self.request_id, **self.trace}


class RequestContextMiddleware:
    """Gives every request its RequestContext, and its id back on every response, whoever answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identity = RequestContext(time.perf_counter(), _request_id(headers), _trace(headers))
        scope.setdefault("state", {})["identity"] = identity
        status = 0

        async def named_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity.request_id
            await send(message)

        try:
            await self.app(scope, receive, named_send)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
            seconds = time.perf_counter() - identity.arrived
            # %r: a path may hold any character, a line feed that would fake a log line too.
            line = "%s %r -> %s in %.3f s, request %s"
            log.log(level, line, scope["method"], scope["path"], status or "no answer", seconds, identity.request_id)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    if 1 <= len(given) <= REQUEST_ID_CHARS and all("!" <= char <= "~" for char in given):
        return given
    return uuid.uuid4().hex


def _trace(headers: Headers) -> dict[str, str]:
    """The trace headers as they are; a new span is not started here, so they need not be understood."""
    trace = {}
    for name in ("traceparent", "tracestate"):
        value = ",".join(headers.getlist(name))
        if 1 <= len(value) <= TRACE_CHARS and all(" " <= char <= "~" for char in value):
            trace[name] = value
    return trace
