"""A process that exposes web's metrics, each with a value: `python -m tests.manifests.monitoring.exposition PORT`."""

from __future__ import annotations

import sys
import threading

from prometheus_client import Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from web import metrics

LABELS = {
    "route": "/generate",
    "model": "poet",
    "status_class": "2xx",
    "caller": "ann",
    "phase": "queue",
    "state": "ready",
    "outcome": "done",
    "command": "XADD",
    "type": "requested",
}
"""Of something that goes well."""


def give_values() -> None:
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            one = metric.labels(**{name: LABELS[name] for name in metric._labelnames}) if metric._labelnames else metric
            if isinstance(one, Counter):
                one.inc()
            elif isinstance(one, Histogram):
                one.observe(0.1)
            elif isinstance(one, Gauge):
                one.set(1)
    metrics.STORE_MOST_BYTES.set(100)


if __name__ == "__main__":
    give_values()
    start_http_server(int(sys.argv[1]), "127.0.0.1")
    threading.Event().wait()
