"""Traces: spans for an OpenTelemetry collector, where OTEL_EXPORTER_OTLP_ENDPOINT names one.

The variables of OpenTelemetry's SDK say the rest: docs/traces.md. Without a collector nothing of OpenTelemetry is
imported, and what is here does nothing. Whether a request is traced is asked once, before any instrumentation does
anything: OpenTelemetry itself makes all of a span but its record for each request that is not sampled.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from wire.telemetry.sampling import Sampling

log = logging.getLogger(__name__)

HEADERS = ("traceparent", "tracestate")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

CLOSE_SECONDS = 2.0
"""Whoever waits for this process to end may wait to start the next one in its place."""

MakeSpan = Callable[[str, float, float], None]
"""Makes a span of a name, a beginning and an end, both in seconds since 1970."""


class Tracing:
    """What this process traces with."""

    def __init__(self, provider: TracerProvider) -> None:
        from wire.telemetry.sampling import Sampling

        self.provider = provider
        self.sampling: Sampling = Sampling.of(provider)
        self.tracer = provider.get_tracer("shangcai", version("shangcai"))

    def close(self) -> None:
        """Send what has not been sent, for CLOSE_SECONDS at most: a collector that is down holds nobody up."""
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)


_tracing: Tracing | None = None


def tracing() -> Tracing | None:
    """None where nothing is traced."""
    return _tracing


def wanted() -> bool:
    """Whether the environment names a collector, and does not switch traces off."""
    named = any(os.environ.get(name) for name in ENDPOINTS)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return named and not off


def start_tracing(service: str) -> None:
    """Trace from now on where the environment asks for it; `service` is the service's name where that says none."""
    if not wanted():
        return
    # It warns of each header that clients make up.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("nothing is traced: %s is not installed; pip install 'shangcai[otel]'", error.name)
        return
    resource = Resource.create({"service.version": version("shangcai")})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the environment names none
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(Tracing(provider))
    log.info("traces go to %s", next(os.environ[name] for name in ENDPOINTS if os.environ.get(name)))


def use(new: Tracing | None) -> None:
    """Trace with this from now on."""
    global _tracing
    _tracing = new
    _trace_redis(new)


def stop_tracing() -> None:
    """Send what has not been sent, and trace no more."""
    if _tracing is not None:
        _tracing.close()
        use(None)


def _trace_redis(used: Tracing | None) -> None:
    """A span for each command to Redis that belongs to a sampled request; its arguments are left out."""
    try:
        from opentelemetry.instrumentation.redis import RedisInstrumentor
    except ImportError:  # only where nothing is traced
        return
    instrumentor = RedisInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    if used is not None:
        instrumentor.instrument(tracer_provider=used.provider)


def passed_on(given: Mapping[str, str]) -> dict[str, str]:
    """The trace headers for whoever goes on with a request that came with those `given`: of the span that is open, and
    without one the same. Where others shall not sample what is not sampled here, they say that."""
    if _tracing is None or (not _tracing.sampling.sampled and "traceparent" in given):
        return {name: given[name] for name in HEADERS if name in given}
    if not _tracing.sampling.sampled:
        return {"traceparent": f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-00"}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Of a traceparent, which may be anything that a client has sent."""
    parts = headers.get("traceparent", "").split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or not set(parts[1]) <= set("0123456789abcdef"):
        return None
    return parts[1]


@contextmanager
def work(
    name: str, headers: Mapping[str, str], attributes: Mapping[str, Any] | None = None, *, linked: bool = False
) -> Iterator[None]:
    """Around work that goes on with the trace of these headers, in another process or later. With `linked` its span
    links to theirs besides: something of this was done before."""
    if _tracing is None:
        yield
        return
    with _tracing.sampling.decided(headers) as sampled:
        if not sampled:
            yield
            return
        from opentelemetry.trace import Link, SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract(dict(headers))
        first = get_current_span(context).get_span_context()
        links = [Link(first)] if linked and first.is_valid else []
        with _tracing.tracer.start_as_current_span(
            name, context, SpanKind.CONSUMER, attributes=dict(attributes or {}), links=links, record_exception=False
        ):
            yield


def link_to(headers: Mapping[str, str]) -> None:
    """Link the span that is open to the one of these headers."""
    if _tracing is None:
        return
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    other = get_current_span(TraceContextTextMapPropagator().extract(dict(headers))).get_span_context()
    if other.is_valid:
        get_current_span().add_link(other)


def is_sampled() -> bool:
    """Whether what is done now is traced."""
    return _tracing is not None and _tracing.sampling.sampled


@contextmanager
def open_span(name: str, begun: float, attributes: Mapping[str, Any], *, failed: bool = False) -> Iterator[MakeSpan]:
    """A span that began then, in seconds since 1970, under the one that is open, and ends now; yields what makes spans
    under it. Only where `is_sampled`."""
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    assert _tracing is not None
    tracer = _tracing.tracer
    span = tracer.start_span(name, start_time=_nanoseconds(begun), attributes=dict(attributes))
    under = set_span_in_context(span)

    def make(child: str, child_begun: float, child_ended: float) -> None:
        tracer.start_span(child, under, start_time=_nanoseconds(child_begun)).end(_nanoseconds(child_ended))

    yield make
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
