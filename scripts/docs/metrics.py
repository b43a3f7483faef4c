"""Print docs/metrics.md from the metrics themselves: `python -m scripts.docs.metrics > docs/metrics.md`."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from predictor import metrics

HEAD = """\
# Metrics of the predictor

`GET /metrics`, in Prometheus' format. KServe's own histograms (`request_predict_seconds` and its kin) are there too.
This table is made by `python -m scripts.docs.metrics`; a test keeps it true.

| name | type | labels | meaning |
|---|---|---|---|
"""


def describe() -> str:
    """The whole page."""
    rows = []
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            suffix = "_total" if metric._type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append(f"| `{metric._name}{suffix}` | {metric._type} | {labels} | {metric._documentation} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(describe(), end="")
