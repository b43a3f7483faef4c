"""How long commands to the shared store take, and how many fail: for wire.shared_store.client."""

from __future__ import annotations

from prometheus_client import Histogram

from web.metrics import STORE, STORE_ERRORS

_HISTOGRAMS: dict[str, Histogram] = {}


def note_command(command: str, seconds: float | None) -> None:
    """`seconds` are None where it has failed."""
    if seconds is None:
        STORE_ERRORS.labels(command).inc()
        return
    histogram = _HISTOGRAMS.get(command)
    if histogram is None:
        histogram = _HISTOGRAMS[command] = STORE.labels(command)
        STORE_ERRORS.labels(command)
    histogram.observe(seconds)
