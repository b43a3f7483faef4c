"""Print docs/metrics.md from the metrics themselves: `python -m scripts.docs.metrics > docs/metrics.md`."""

from __future__ import annotations

from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

from predictor import metrics as of_predictor
from web import metrics as of_web
from web.telemetry_settings import METRICS_PORT

HEAD = """\
# Metrics

In Prometheus' format. This page is made by `python -m scripts.docs.metrics`; a test keeps it true.

## Of the predictor

`GET /metrics` on its port. KServe's own histograms (`request_predict_seconds` and its kin) are there too.

"""

WEB = f"""
## Of web

`GET /metrics` on a port of its own, `METRICS_PORT`: {METRICS_PORT} in a pod, and none elsewhere unless it is set. It is
not where the clients are. Each replica counts for itself; what the store holds is the same for all that share it, and
up to 10 s old.

"""

TABLE = """\
| name | type | labels | meaning |
|---|---|---|---|
"""


def describe() -> str:
    """The whole page."""
    return HEAD + table(of_predictor) + WEB + table(of_web)


def table(module: ModuleType) -> str:
    """The metrics of a module."""
    rows = []
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            suffix = "_total" if metric._type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append(f"| `{metric._name}{suffix}` | {metric._type} | {labels} | {metric._documentation} |\n")
    return TABLE + "".join(rows)


if __name__ == "__main__":
    print(describe(), end="")
