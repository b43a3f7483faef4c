"""Jobs in the memory of one replica: they are gone with it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from contract import JobState
from web.jobs.store import BEGINNING, Claim, JobRecord, JobStore, LogEntry, last_event


@dataclass(slots=True)
class _Kept:
    """A job and its log; `bell` rings, and is replaced, whenever something has changed."""

    record: JobRecord
    size: int
    log: list[LogEntry] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    told: int = 0

    def ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()


class MemoryStore(JobStore):
    """Forgets a job `keep_seconds` after its end, or earlier where more than `most_bytes` of ended ones are kept: but
    never the newest, which somebody may be waiting for."""

    def __init__(self, keep_seconds: float, most_bytes: int, log_entries: int) -> None:
        self._keep_seconds = keep_seconds
        self._most_bytes = most_bytes
        self._log_entries = log_entries
        self._jobs: dict[str, _Kept] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()  # when each is to be forgotten, the first of them first
        self._bytes = 0
        self._lines: defaultdict[str, dict[str, bool]] = defaultdict(dict)  # of each model; those that are taken: True
        self._queued: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        kept = self._jobs.get(record.id)
        if kept is not None:
            return kept.record
        self._jobs[record.id] = _Kept(record, len(record.order))
        if queued:
            self._lines[record.model][record.id] = False
            self._queued[record.model].set()
        return record

    async def get(self, job: str) -> JobRecord | None:
        kept = self._jobs.get(job)
        return None if kept is None else kept.record

    async def position(self, record: JobRecord) -> int | None:
        line = list(self._lines[record.model])
        return line.index(record.id) if record.state == "queued" and record.id in line else None

    async def open_jobs(self) -> int:
        return len(self._jobs) - len(self._ended)

    async def overdue(self, now: float) -> list[str]:
        self._forget(now)
        return [job for job, kept in self._jobs.items() if kept.record.ended is None and kept.record.deadline <= now]

    async def tell(self, job: str, entries: Sequence[tuple[str, str]]) -> None:
        kept = self._jobs.get(job)
        if kept is None or kept.record.ended is not None:
            return
        for event, data in entries:
            self._log(kept, event, data)
        kept.ring()

    async def advance(self, job: str, told: int, entry: Callable[[int], tuple[str, str]]) -> None:
        kept = self._jobs.get(job)
        if kept is not None and kept.record.ended is None and kept.told < told:
            before, kept.told = kept.told, told
            await self.tell(job, [entry(before)])

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        seen = _number(after)
        while (kept := self._jobs.get(job)) is not None:
            bell = kept.bell
            # Older entries may have been dropped: ids tell what is new, and not places.
            dropped = _number(kept.log[0].id) - 1 if kept.log else 0
            new = kept.log[max(0, seen - dropped) :]
            for entry in new:
                yield entry
                seen = _number(entry.id)
                if entry.last:
                    return
            if kept.record.ended is not None and not new:
                return
            await bell.wait()

    async def start(self, job: str, now: float) -> bool:
        kept = self._jobs.get(job)
        if kept is None or kept.record.state != "queued":
            return False
        kept.record = replace(kept.record, started=now, attempts=kept.record.attempts + 1)
        kept.ring()
        return True

    async def restart(self, job: str) -> None:
        kept = self._jobs.get(job)
        if kept is not None and kept.record.ended is None:
            kept.record, kept.told = replace(kept.record, started=None), 0
            kept.ring()

    async def finish(self, job: str, end: JobState, outcome: str, now: float) -> bool:
        kept = self._jobs.get(job)
        if kept is None or kept.record.ended is not None:
            return False
        kept.record = replace(kept.record, end=end, ended=now, outcome=outcome)
        self._log(kept, last_event(end), outcome)
        self._lines[kept.record.model].pop(job, None)
        self._ended[job] = now + self._keep_seconds
        self._bytes += kept.size
        kept.ring()
        self._forget(now)
        return True

    async def ended(self, job: str) -> None:
        while (kept := self._jobs.get(job)) is not None and kept.record.ended is None:
            await kept.bell.wait()

    async def take(self, model: str) -> Claim:
        line, queued = self._lines[model], self._queued[model]
        while (job := next((job for job, taken in line.items() if not taken), None)) is None:
            queued.clear()
            await queued.wait()
        line[job] = True
        return Claim(model, job)

    async def keep(self, claims: Sequence[Claim]) -> None:
        pass

    async def done(self, claim: Claim) -> None:
        self._lines[claim.model].pop(claim.job, None)

    async def release(self, claim: Claim) -> None:
        if claim.job in self._lines[claim.model]:
            self._lines[claim.model][claim.job] = False
            self._queued[claim.model].set()

    def _log(self, kept: _Kept, event: str, data: str) -> None:
        number = _number(kept.log[-1].id) + 1 if kept.log else 1
        kept.log.append(LogEntry(f"0-{number}", event, data))
        kept.size += len(data)
        if len(kept.log) > self._log_entries:
            kept.size -= len(kept.log.pop(0).data)

    def _forget(self, now: float) -> None:
        while self._ended:
            job, at = next(iter(self._ended.items()))
            if at > now and (self._bytes <= self._most_bytes or len(self._ended) == 1):
                return
            del self._ended[job]
            kept = self._jobs.pop(job)
            self._bytes -= kept.size
            kept.ring()


def _number(entry: str) -> int:
    before, _, number = entry.partition("-")  # as in Redis; here nothing but 0 stands before
    return (int(before) << 64) + int(number)
