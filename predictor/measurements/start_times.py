"""How long the latest starts of a model took, to say how long the next one will."""

from __future__ import annotations

import hashlib
import json
from statistics import median

from predictor.measurements.cache import MeasurementCache
from predictor.measurements.records import STARTS, StartRecord


class StartTimes:
    """Of the model that these `facts` name, which are values of JSON: known before anything is loaded."""

    def __init__(self, cache: MeasurementCache, **facts: object) -> None:
        self._cache = cache
        self._key = "start_" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        known = cache.find(StartRecord, self._key)
        self._seconds = known.seconds if known else []

    @property
    def expected_seconds(self) -> float | None:
        """The median; None before the first start."""
        return round(median(self._seconds), 1) if self._seconds else None

    def add(self, seconds: float) -> None:
        """A start has ended, after so many seconds."""
        self._seconds = [*self._seconds, round(seconds, 3)][-STARTS:]
        self._cache.keep(StartRecord(seconds=self._seconds), self._key)
