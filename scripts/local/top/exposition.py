"""Prometheus' text format: what one look at web's metrics has found, and what changed between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Exposition:
    """Values by the name of the sample, and by its labels."""

    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The sums of the series with these `labels`, for each value of another one."""
        sums: dict[str, float] = {}
        for series, value in self.samples.get(name, {}).items():
            if series >= labels.items():
                key = dict(series).get(label, "")
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the series with these labels; None where there is none."""
        found = [value for series, value in self.samples.get(name, {}).items() if series >= labels.items()]
        return sum(found) if found else None

    def since(self, before: Exposition) -> Exposition:
        """What counters and histograms have grown by. A series that was not there, or that is smaller because web was
        started again, has grown from 0."""
        grown = {
            name: {
                labels: value - earlier
                if value >= (earlier := before.samples.get(name, {}).get(labels, 0.0))
                else value
                for labels, value in series.items()
            }
            for name, series in self.samples.items()
        }
        return Exposition(grown)


def parse_exposition(text: str) -> Exposition:
    """Raises a ValueError for what is none."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Exposition(samples)


def mean(exposition: Exposition, name: str, **labels: str) -> float | None:
    """Of what a histogram has observed; None of nothing."""
    count = exposition.total(f"{name}_count", **labels)
    return (exposition.total(f"{name}_sum", **labels) or 0.0) / count if count else None
