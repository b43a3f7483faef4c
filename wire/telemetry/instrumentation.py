"""OpenTelemetry's own instrumentations of ASGI and httpx2, asked for what is sampled only."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wire.telemetry.facts import Facts
from wire.telemetry.tracing import Tracing, tracing

if TYPE_CHECKING:
    import httpx2
    from opentelemetry.trace import Span

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

_QUERY = "shangcai.query"
"""Where the query is kept from the instrumentation, which would write it into the span: it may hold a secret."""


class TracedRequests:
    """ASGI middleware: a span for each request that is sampled, but for those to `quiet_paths`, which are probed."""

    def __init__(self, app: ASGIApp, quiet_paths: Container[str] = ()) -> None:
        self.app = app
        self._quiet_paths = quiet_paths
        self._of: Tracing | None = None
        self._traced: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        used = tracing()
        if used is None or scope["type"] != "http" or self._is_quiet(scope):
            await self.app(scope, receive, send)
            return
        with used.sampling.decided(Headers(scope=scope)) as sampled:
            if not sampled:
                await self.app(scope, receive, send)
                return
            if used is not self._of:
                self._of, self._traced = used, self._instrumented(used)
            await self._traced({**scope, "query_string": b"", _QUERY: scope["query_string"]}, receive, send)

    def _is_quiet(self, scope: Scope) -> bool:
        return scope["path"].removeprefix(scope.get("root_path", "")) in self._quiet_paths

    def _instrumented(self, used: Tracing) -> Any:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.metrics import NoOpMeterProvider

        return OpenTelemetryMiddleware(
            self._whole,
            default_span_details=lambda scope: (_method(scope), {}),
            tracer_provider=used.provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import get_current_span

        scope["query_string"] = scope.pop(_QUERY)
        span = get_current_span()

        async def described_send(message: Message) -> None:
            if message["type"] == "http.response.start":  # with the last of the body the span ends
                _describe(span, scope)
            await send(message)

        await self.app(scope, receive, described_send)


def _method(scope: Scope) -> str:
    """As the conventions have it: a client may make up any."""
    return scope["method"] if scope["method"] in _METHODS else "_OTHER"


def _describe(span: Span, scope: Scope) -> None:
    """Whose request it is, as far as that is known when its answer begins."""
    facts: Facts = scope["state"]["facts"]
    attributes = {
        "shangcai.request_id": facts.request_id,
        "shangcai.job_id": facts.job_id,
        "shangcai.caller": scope["state"].get("caller") or facts.caller,
        "http.route": facts.route,
    }
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
    if facts.route is not None:
        span.update_name(f"{_method(scope)} {facts.route}")


def traced_transport(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncBaseTransport:
    """With a span for each call that belongs to a sampled request."""
    used = tracing()
    if used is None:
        return transport
    from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransportHttpx2

    make: Any = AsyncOpenTelemetryTransportHttpx2  # its annotations are httpx's
    traced: httpx2.AsyncBaseTransport = make(transport, tracer_provider=used.provider)
    return traced
