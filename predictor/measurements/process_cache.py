"""Measurements that a process remembers itself: a model that sleeps without leaving wakes up as it started."""

from __future__ import annotations

from pathlib import Path

from predictor.measurements.cache import AnyRecord, MeasurementCache
from predictor.measurements.records import Record

MOST = 16
"""Records that are kept; a model has a few, and another one only if its files change while it sleeps."""


class ProcessCache(MeasurementCache):
    """As the cache `files`, and also where that keeps nothing."""

    def __init__(self, files: MeasurementCache) -> None:
        super().__init__()
        self._files = files
        self._records: dict[tuple[type[Record], str], Record] = {}

    def find(self, record: type[AnyRecord], key: str) -> AnyRecord | None:
        found = self._records.get((record, key)) or self._files.find(record, key)
        return found if isinstance(found, record) else None

    def keep(self, record: Record, key: str) -> Path | None:
        if len(self._records) >= MOST:
            self._records.clear()
        self._records[type(record), key] = record
        return self._files.keep(record, key)
