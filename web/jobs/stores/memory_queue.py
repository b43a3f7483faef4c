"""The queue in front of one model, in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from web.jobs.record import JobRecord, QueuePlace
from web.jobs.store import PLACE_SECONDS
from wire.concurrency.fair_queue import FairQueue


class MemoryQueue:
    """Jobs that wait, fair between callers, and those that were claimed."""

    def __init__(self) -> None:
        self._waiting = FairQueue[str, str]()
        self._claimed: dict[str, None] = {}
        self._records: dict[str, JobRecord] = {}
        self._grown = asyncio.Event()
        self._positions: dict[str, int] = {}
        self._positions_at = 0.0

    def add(self, record: JobRecord) -> None:
        self._records[record.id] = record
        self._waiting.put(record.caller, record.id, record.cost)
        self._grown.set()

    async def claim(self, but_not: Collection[str] = ()) -> str:
        """Wait for the next job, of other callers than these."""
        while (job := self._waiting.pop(but_not)) is None:
            self._grown.clear()
            await self._grown.wait()
        self._claimed[job] = None
        return job

    def release(self, job: str) -> None:
        """A claimed job waits again, before all others of its caller."""
        if job in self._claimed:
            del self._claimed[job]
            record = self._records[job]
            self._waiting.put_back(record.caller, job, record.cost)
            self._grown.set()

    def remove(self, job: str) -> None:
        record = self._records.pop(job, None)
        if record is not None:
            self._claimed.pop(job, None)
            self._waiting.remove(record.caller, job)

    def place(self, job: str) -> QueuePlace | None:
        """Where a job is, or was up to PLACE_SECONDS ago; None when it is not here."""
        if job not in self._records:
            return None
        if job not in self._positions or time.monotonic() - self._positions_at >= PLACE_SECONDS:
            self._positions = {each: index for index, each in enumerate((*self._claimed, *self._waiting))}
            self._positions_at = time.monotonic()
        return QueuePlace(self._positions[job], len(self._claimed), job in self._claimed)
