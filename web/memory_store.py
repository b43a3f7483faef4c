"""Jobs in the memory of one replica: they are gone with it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from contract import JobState
from web.store import BEGINNING, Claim, Entry, Record, Store, last_event


@dataclass(slots=True)
class _Kept:
    """A job and its log; `bell` rings, and is replaced, whenever something has changed."""

    record: Record
    log: list[Entry] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0
    told: int = 0

    def ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()


class MemoryStore(Store):
    """Forgets a job `keep_seconds` after its end, or earlier where more than `most_bytes` are kept."""

    def __init__(self, keep_seconds: float, most_bytes: int, log_entries: int) -> None:
        self._keep_seconds = keep_seconds
        self._most_bytes = most_bytes
        self._log_entries = log_entries
        self._jobs: dict[str, _Kept] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()  # when each is to be forgotten, the first of them first
        self._bytes = 0
        self._queues: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)  # bounded by max_jobs
        self._waiting: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)  # queued or being run

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def add(self, record: Record, *, queued: bool = True) -> Record:
        kept = self._jobs.get(record.id)
        if kept is not None:
            return kept.record
        self._jobs[record.id] = _Kept(record)
        if queued:
            self._waiting[record.model][record.id] = None
            self._queues[record.model].put_nowait(record.id)
        return record

    async def get(self, job: str) -> Record | None:
        kept = self._jobs.get(job)
        return None if kept is None else kept.record

    async def position(self, record: Record) -> int | None:
        order = list(self._waiting[record.model])
        return order.index(record.id) if record.id in order else None

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
        if kept is not None and kept.told < told:
            before, kept.told = kept.told, told
            await self.tell(job, [entry(before)])

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[Entry]:
        seen = _number(after)
        while (kept := self._jobs.get(job)) is not None:
            bell = kept.bell
            # Older entries may have been dropped: ids tell what is new, and not places.
            for entry in [entry for entry in kept.log if _number(entry.id) > seen]:
                yield entry
                seen = _number(entry.id)
                if entry.last:
                    return
            if kept.record.ended is not None and not any(_number(entry.id) > seen for entry in kept.log):
                return
            await bell.wait()

    async def start(self, job: str, now: float) -> bool:
        return self._change(job, started=now, attempts_more=1)

    async def restart(self, job: str) -> None:
        self._change(job, started=None)

    async def finish(self, job: str, end: JobState, outcome: str, now: float) -> bool:
        kept = self._jobs.get(job)
        if kept is None or kept.record.ended is not None:
            return False
        kept.record = replace(kept.record, end=end, ended=now, outcome=outcome)
        self._log(kept, last_event(end), outcome)
        self._waiting[kept.record.model].pop(job, None)
        self._ended[job] = now + self._keep_seconds
        kept.ring()
        self._forget(now)
        return True

    async def ended(self, job: str) -> None:
        while (kept := self._jobs.get(job)) is not None and kept.record.ended is None:
            await kept.bell.wait()

    async def take(self, model: str) -> Claim:
        return Claim(model, await self._queues[model].get())

    async def keep(self, claims: Sequence[Claim]) -> None:
        pass

    async def done(self, claim: Claim) -> None:
        self._waiting[claim.model].pop(claim.job, None)

    async def release(self, claim: Claim) -> None:
        self._queues[claim.model].put_nowait(claim.job)

    def _change(self, job: str, *, started: float | None, attempts_more: int = 0) -> bool:
        kept = self._jobs.get(job)
        if kept is None or kept.record.ended is not None:
            return False
        kept.record = replace(kept.record, started=started, attempts=kept.record.attempts + attempts_more)
        kept.ring()
        return True

    def _log(self, kept: _Kept, event: str, data: str) -> None:
        number = _number(kept.log[-1].id) + 1 if kept.log else 1
        kept.log.append(Entry(f"0-{number}", event, data))
        kept.size += len(data)
        self._bytes += len(data)
        if len(kept.log) > self._log_entries:
            dropped = len(kept.log.pop(0).data)
            kept.size -= dropped
            self._bytes -= dropped

    def _forget(self, now: float) -> None:
        while self._ended:
            job, at = next(iter(self._ended.items()))
            if at > now and self._bytes <= self._most_bytes:
                return
            del self._ended[job]
            kept = self._jobs.pop(job)
            self._bytes -= kept.size
            kept.ring()


def _number(entry: str) -> int:
    return int(entry.rpartition("-")[2])
