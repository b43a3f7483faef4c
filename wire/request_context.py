"""The outermost middleware of both servers: it gives every request an id, times it and logs it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Container, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

REQUEST_ID_CHARS = 128
"""Longest X-Request-Id that is taken from a client; anything else is replaced."""

TRACE_CHARS = 512
"""Longest traceparent or tracestate that is passed on (W3C asks for at least 512)."""


CALLER_HEADER = "X-Shangcai-Caller"
"""From web to its model servers: who asks."""


@dataclass(frozen=True)
class RequestContext:
    """One HTTP request: when it arrived, on the clock of `time.perf_counter`, its id and its W3C trace headers."""

    arrived: float
    request_id: str
    trace: dict[str, str]

    @classmethod
    def of(cls, scope: Scope) -> RequestContext:
        context = scope["state"]["context"]
        assert isinstance(context, cls)
        return context

    @property
    def headers(self) -> dict[str, str]:
        """Passed on to the model servers."""
        return {"X-Request-Id": self.request_id, **self.trace}


class RequestContextMiddleware:
    """Gives every request its RequestContext, and every response the request's id.

    Requests to `quiet_paths`, which are probed every few seconds, are logged at debug.
    """

    def __init__(self, app: ASGIApp, quiet_paths: Container[str] = ()) -> None:
        self.app = app
        self.quiet_paths = quiet_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        context = RequestContext(time.perf_counter(), request_id(headers), _trace(headers))
        scope.setdefault("state", {})["context"] = context
        status = 0

        async def named_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = context.request_id
            await send(message)

        try:
            await self.app(scope, receive, named_send)
        finally:
            level = logging.DEBUG if scope["path"] in self.quiet_paths else logging.INFO
            seconds = time.perf_counter() - context.arrived
            # %r: a path may hold any character, a line feed that would fake a log line too.
            line = "%s %r -> %s in %.3f s, request %s"
            log.log(level, line, scope["method"], scope["path"], status or "no answer", seconds, context.request_id)


def request_id(headers: Mapping[str, str]) -> str:
    """The client's X-Request-Id, or a new one where it gave none that is fit for a log. Names in lower case."""
    given = headers.get("x-request-id", "")
    if 1 <= len(given) <= REQUEST_ID_CHARS and all("!" <= char <= "~" for char in given):
        return given
    return uuid.uuid4().hex


def _trace(headers: Headers) -> dict[str, str]:
    """The trace headers as they came: web starts no span of its own."""
    trace = {}
    for name in ("traceparent", "tracestate"):
        value = ",".join(headers.getlist(name))
        if 1 <= len(value) <= TRACE_CHARS and all(" " <= char <= "~" for char in value):
            trace[name] = value
    return trace
