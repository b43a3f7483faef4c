"""How far metrics have moved: all tests of a process share them."""

from __future__ import annotations

from prometheus_client import REGISTRY


class Sample:
    """One sample of the metrics, and how it was when the test began to look."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name = f"shangcai_web_{name}"
        self._labels = labels
        self._before = self.value

    @property
    def value(self) -> float:
        """0 where there is none."""
        return REGISTRY.get_sample_value(self._name, self._labels) or 0.0

    @property
    def grown(self) -> float:
        return self.value - self._before
