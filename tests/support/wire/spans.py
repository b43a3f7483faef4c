"""The spans of what a test does, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from wire.telemetry.tracing import Tracing, use


class Spans:
    """Those that have ended, the oldest first."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self if span.name == name]

    @property
    def names(self) -> list[str]:
        return [span.name for span in self]

    @property
    def traces(self) -> set[str]:
        return {trace_of(span) for span in self}

    def with_attribute(self, name: str, value: str) -> list[ReadableSpan]:
        return [span for span in self if (span.attributes or {}).get(name) == value]

    def under(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [span for span in self if span.parent and span.parent.span_id == id_of(parent)]

    @property
    def everything(self) -> str:
        """All that is said in them, as text."""
        return "\n".join(span.to_json() for span in self)


def trace_of(span: ReadableSpan) -> str:
    return f"{_context(span).trace_id:032x}"


def id_of(span: ReadableSpan) -> int:
    span_id: int = _context(span).span_id
    return span_id


def seconds_of(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def _context(span: ReadableSpan) -> Any:
    assert span.context is not None
    return span.context


@contextmanager
def recorded(sampler: Sampler = ALWAYS_ON) -> Iterator[Spans]:
    """Trace, with this sampler, within."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(Tracing(provider))
    try:
        yield Spans(exporter)
    finally:
        use(None)
        provider.shutdown()
