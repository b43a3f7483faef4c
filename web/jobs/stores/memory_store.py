"""Jobs in the memory of one replica, lost when it ends."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from contract import JobState
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry, QueuePlace, last_event
from web.jobs.store import CLAIM_SECONDS, ClaimLost, JobStore
from web.jobs.stores.memory_queue import MemoryQueue


@dataclass(slots=True)
class _Job:
    """A job and its log. `size` is in bytes, roughly."""

    record: JobRecord
    size: int
    log: list[LogEntry] = field(default_factory=list)
    reached: int = 0
    """How far its progress is."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, at every change."""

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryStore(JobStore):
    """Forgets a job `keep_seconds` after its end, or earlier where ended jobs take more than `most_bytes`; but never
    the job that ended last, which somebody may be waiting for. A log holds the newest `log_entries` events."""

    def __init__(self, keep_seconds: float, most_bytes: int, log_entries: int) -> None:
        super().__init__()
        self._keep_seconds = keep_seconds
        self._most_bytes = most_bytes
        self._log_entries = log_entries
        self._jobs: dict[str, _Job] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()  # when to forget each job, in seconds since 1970
        self._ended_bytes = 0
        self._queues: defaultdict[str, MemoryQueue] = defaultdict(MemoryQueue)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        existing = self._jobs.get(record.id)
        if existing is not None:
            return existing.record
        self._jobs[record.id] = _Job(record, len(record.request))
        if queued:
            self._queues[record.model].add(record)
        return record

    async def get(self, job: str) -> JobRecord | None:
        stored = self._jobs.get(job)
        return None if stored is None else stored.record

    async def place(self, record: JobRecord) -> QueuePlace | None:
        return self._queues[record.model].place(record.id) if record.state == "queued" else None

    async def open_jobs(self) -> int:
        return len(self._jobs) - len(self._ended)

    async def overdue(self, now: float) -> list[str]:
        self._forget(now)
        return [
            job for job, stored in self._jobs.items() if stored.record.ended is None and stored.record.deadline <= now
        ]

    async def append(self, job: str, entries: Sequence[tuple[str, str]], generation: int | None = None) -> None:
        stored = self._open(job, generation)
        if stored is None:
            return
        for event, data in entries:
            self._log(stored, event, data)
        stored.notify()

    async def append_progress(
        self, job: str, reached: int, entry: Callable[[int], tuple[str, str]], generation: int | None = None
    ) -> None:
        stored = self._open(job, generation)
        if stored is not None and stored.reached < reached:
            before, stored.reached = stored.reached, reached
            await self.append(job, [entry(before)], generation)

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        seen = _number(after)
        while (stored := self._jobs.get(job)) is not None:
            changed = stored.changed
            # The log may have dropped its oldest entries, so that ids and not indexes tell what is new.
            dropped = _number(stored.log[0].id) - 1 if stored.log else 0
            new = stored.log[max(0, seen - dropped) :]
            for entry in new:
                yield entry
                seen = _number(entry.id)
                if entry.last:
                    return
            if stored.record.ended is not None and not new:
                return
            await changed.wait()

    async def start(self, job: str, now: float, generation: int | None = None) -> bool:
        stored = self._open(job, generation)
        if stored is None or stored.record.state != "queued":
            return False
        stored.record = replace(stored.record, started=now, attempts=stored.record.attempts + 1)
        stored.notify()
        return True

    async def reset(self, job: str, generation: int | None = None, attempts: int = 0) -> None:
        stored = self._open(job, generation)
        if stored is not None:
            stored.record = replace(stored.record, started=None, attempts=stored.record.attempts + attempts)
            stored.reached = 0
            stored.notify()

    async def finish(self, job: str, end: JobState, outcome: str, now: float, generation: int | None = None) -> bool:
        stored = self._open(job, generation)
        if stored is None:
            return False
        stored.record = replace(stored.record, end=end, ended=now, outcome=outcome)
        self._log(stored, last_event(end), outcome)
        self._queues[stored.record.model].remove(job)
        self._ended[job] = now + self._keep_seconds
        self._ended_bytes += stored.size
        stored.notify()
        self._forget(now)
        return True

    async def wait_for_end(self, job: str) -> None:
        while (stored := self._open(job)) is not None:
            await stored.changed.wait()

    async def claim(self, model: str) -> Claim | None:
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                job = await self._queues[model].claim()
        except TimeoutError:
            return None
        stored = self._jobs[job]
        stored.record = replace(stored.record, generation=stored.record.generation + 1)
        return Claim(model, job, generation=stored.record.generation)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return ()  # leases do not run out where there is one replica

    async def acknowledge(self, claim: Claim) -> None:
        self._queues[claim.model].remove(claim.job)

    async def release(self, claim: Claim) -> None:
        stored = self._open(claim.job)
        if stored is not None and stored.record.generation == claim.generation:
            self._queues[claim.model].release(claim.job)

    def _open(self, job: str, generation: int | None = None) -> _Job | None:
        """The job, unless it is unknown or has ended. Raises ClaimLost where it was claimed after this generation."""
        stored = self._jobs.get(job)
        if stored is None or stored.record.ended is not None:
            return None
        if generation is not None and stored.record.generation > generation:
            raise ClaimLost(job)
        return stored

    def _log(self, stored: _Job, event: str, data: str) -> None:
        number = _number(stored.log[-1].id) + 1 if stored.log else 1
        stored.log.append(LogEntry(f"0-{number}", event, data))
        stored.size += len(data)
        if len(stored.log) > self._log_entries:
            stored.size -= len(stored.log.pop(0).data)

    def _forget(self, now: float) -> None:
        while self._ended:
            job, at = next(iter(self._ended.items()))
            if at > now and (self._ended_bytes <= self._most_bytes or len(self._ended) == 1):
                return
            del self._ended[job]
            stored = self._jobs.pop(job)
            self._ended_bytes -= stored.size
            stored.notify()


def _number(entry: str) -> int:
    """An entry id as a number that grows. Ids look as in Redis; those made here begin with 0."""
    before, _, number = entry.partition("-")
    return (int(before) << 64) + int(number)
