"""A collector of traces: OTLP over HTTP, in a thread."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class CollectedSpan:
    """One that a process has sent."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    seconds: float
    attributes: dict[str, str]
    links: list[str]
    """Ids of spans."""


class Collector(ThreadingHTTPServer):
    """Its `url` is OTEL_EXPORTER_OTLP_ENDPOINT."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.spans: list[CollectedSpan] = []

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process whose every request is traced, and sent at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def of_request(self, request_id: str) -> list[CollectedSpan]:
        """All spans of the traces that a span with this request id belongs to."""
        spans = list(self.spans)
        traces = {span.trace_id for span in spans if span.attributes.get("shangcai.request_id") == request_id}
        return [span for span in spans if span.trace_id in traces]

    def under(self, parent: CollectedSpan) -> list[CollectedSpan]:
        return [span for span in list(self.spans) if span.parent_id == parent.span_id]

    def take(self, document: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(document).resource_spans:
            resource = {one.key: one.value.string_value for one in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_collected(resource["service.name"], span) for span in scope_spans.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _collected(service: str, span: Any) -> CollectedSpan:
    return CollectedSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes={one.key: one.value.string_value for one in span.attributes},
        links=[link.span_id.hex() for link in span.links],
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()
