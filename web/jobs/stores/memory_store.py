"""Jobs in the memory of one replica, lost when it ends."""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from contract import JobState, Webhook
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry, QueuePlace, ended_request, last_event
from web.jobs.store import CLAIM_SECONDS, REQUESTS_SHARE, ClaimLost, JobStore, ModelDocuments, requests_full
from web.jobs.stores.due_lists.memory_due_list import MemoryDueList
from web.jobs.stores.memory_queue import MemoryQueue
from web.jobs.stores.memory_use.freed_memory import FreedMemory
from web.jobs.stores.memory_use.sizes import ENTRY_BYTES, JOB_BYTES, record_size, request_size, text_size
from web.metrics import JOBS_ENDED
from web.telemetry.store_usage import StoreUsage


@dataclass(slots=True)
class _Job:
    """A job and its log. `size` are the bytes of both."""

    record: JobRecord
    size: int
    log: list[LogEntry] = field(default_factory=list)
    first: int = 1
    """The number of its first entry: larger than all of the job that it replaces."""
    reached: int = 0
    """How far its progress is."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, at every change."""

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryDocuments(ModelDocuments):
    def __init__(self) -> None:
        self._documents: dict[str, str] = {}

    async def put(self, model: str, document: str) -> None:
        self._documents[model] = document

    async def all(self) -> dict[str, str]:
        return dict(self._documents)


class MemoryStore(JobStore):
    """Keeps up to `most_bytes`. Forgets a job its own or else these `keep_seconds` after its end, or earlier if memory
    is full; but never the job that ended last, which somebody may be waiting for. A log holds the newest `log_entries`
    events, or fewer where memory is full of jobs that have not ended."""

    def __init__(self, keep_seconds: float, most_bytes: int, log_entries: int) -> None:
        super().__init__()
        self._secret = secrets.token_urlsafe(32)
        self.documents = MemoryDocuments()
        self._keep_seconds = keep_seconds
        self._most_bytes = most_bytes
        self._most_request_bytes = most_bytes * REQUESTS_SHARE
        self._log_entries = log_entries
        self._jobs: dict[str, _Job] = {}
        self._listed: defaultdict[str, list[str]] = defaultdict(list)  # the cursors of each caller's jobs, sorted
        self._ended: OrderedDict[str, float] = OrderedDict()  # when to forget each job, in seconds since 1970
        self._forgotten: list[tuple[float, str]] = []  # the same as a heap; what was forgotten earlier is there, too
        self._bytes = 0
        self._request_bytes = 0  # of jobs that have not ended
        self._freed = FreedMemory()
        self._queues: defaultdict[str, MemoryQueue] = defaultdict(MemoryQueue)
        self.due: MemoryDueList = MemoryDueList()

    async def secret(self) -> str:
        return self._secret

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        existing = self._jobs.get(record.id)
        if existing is not None and not record.replaces(existing.record):
            return existing.record
        request_bytes = request_size(record)
        if self._request_bytes and self._request_bytes + request_bytes > self._most_request_bytes:
            raise requests_full(self._most_request_bytes)
        first = 1
        if existing is not None:
            first = _number(existing.log[-1].id) + 1
            record = replace(record, generation=existing.record.generation + 1)
            del self._ended[record.id]
            self._drop(record.id)
        self._request_bytes += request_bytes
        self._jobs[record.id] = stored = _Job(record, 0, first=first)
        self._resize(stored, JOB_BYTES + request_bytes + record_size(record))
        if record.is_listed:
            insort(self._listed[record.caller], record.cursor)
        if record.webhook is not None:
            self.due.add(record.id, record.deadline)
        if queued:
            self._queues[record.model].add(record)
        return record

    async def get(self, job: str) -> JobRecord | None:
        stored = self._jobs.get(job)
        return None if stored is None else stored.record

    async def jobs_of(self, caller: str, limit: int, before: str | None = None) -> list[JobRecord]:
        cursors = self._listed.get(caller, [])
        end = len(cursors) if before is None else bisect_left(cursors, before)
        ids = [cursor.partition("-")[2] for cursor in reversed(cursors[max(end - limit, 0) : end])]
        return [replace(self._jobs[job].record, request="", headers={}, outcome=None, response=None) for job in ids]

    async def delete(self, record: JobRecord) -> None:
        if self._ended.pop(record.id, None) is not None:
            self._drop(record.id)

    async def place(self, record: JobRecord) -> QueuePlace | None:
        return self._queues[record.model].place(record.id) if record.state == "queued" else None

    async def open_jobs(self) -> int:
        return len(self._jobs) - len(self._ended)

    async def usage(self) -> StoreUsage:
        usage = StoreUsage(self._bytes, self._most_bytes)
        for record in (self._jobs[job].record for job in self._jobs.keys() - self._ended.keys()):
            usage.add(record.model, record.state, record.created)
        return usage

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
            if len(stored.log) + dropped > seen:
                entry = stored.log[max(0, seen - dropped)]
                del stored  # or a watcher that reads slowly would keep a job that has been forgotten
                yield entry
                seen = _number(entry.id)
                if entry.last:
                    return
                continue
            if stored.record.ended is not None:
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

    async def finish(
        self,
        job: str,
        end: JobState,
        outcome: str,
        now: float,
        generation: int | None = None,
        artifact: str | None = None,
    ) -> bool:
        stored = self._open(job, generation)
        if stored is None:
            return False
        request, left = stored.record.request, ended_request(stored.record.request)
        self._request_bytes -= request_size(stored.record)
        self._resize(stored, text_size(left) - text_size(request))
        stored.record = replace(
            stored.record, request=left, end=end, ended=now, outcome=None if artifact else outcome, artifact=artifact
        )
        JOBS_ENDED.labels(stored.record.model, end).inc()
        keep = self._keep_seconds if stored.record.keep_seconds is None else stored.record.keep_seconds
        self._ended[job] = now + keep
        heappush(self._forgotten, (now + keep, job))
        if len(self._forgotten) > 2 * len(self._ended) + 64:
            self._forgotten = sorted((at, job) for job, at in self._ended.items())
        self._log(stored, last_event(end), "" if artifact else outcome)
        self._queues[stored.record.model].remove(job)
        self.due.hasten(job, now)
        stored.notify()
        self._forget(now)
        return True

    async def note_webhook(self, record: JobRecord, webhook: Webhook) -> None:
        stored = self._jobs.get(record.id)
        if stored is not None and stored.record.created == record.created:
            stored.record = replace(stored.record, webhook=webhook)

    async def wait_for_end(self, job: str) -> None:
        while (stored := self._open(job)) is not None:
            await stored.changed.wait()

    async def claim(self, model: str, but_not: Collection[str] = ()) -> Claim | None:
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                job = await self._queues[model].claim(but_not)
        except TimeoutError:
            return None
        stored = self._jobs[job]
        stored.record = replace(stored.record, generation=stored.record.generation + 1)
        return Claim(model, job, generation=stored.record.generation, caller=stored.record.caller)

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
        number = _number(stored.log[-1].id) + 1 if stored.log else stored.first
        stored.log.append(LogEntry(f"0-{number}", event, data))
        self._resize(stored, ENTRY_BYTES + text_size(data))
        self._forget(0)
        while len(stored.log) > self._log_entries or (len(stored.log) > 1 and self._bytes > self._most_bytes):
            self._resize(stored, -ENTRY_BYTES - text_size(stored.log.pop(0).data))

    def _forget(self, now: float) -> None:
        while self._forgotten and self._forgotten[0][0] <= now:
            at, job = heappop(self._forgotten)
            if self._ended.get(job) == at:
                del self._ended[job]
                self._drop(job)
        while self._bytes > self._most_bytes and len(self._ended) > 1:
            self._drop(self._ended.popitem(last=False)[0])

    def _drop(self, job: str) -> None:
        stored = self._jobs.pop(job)
        self.due.forget(job)
        self._resize(stored, -stored.size)
        cursors = self._listed.get(stored.record.caller, [])
        place = bisect_left(cursors, stored.record.cursor)
        if cursors[place : place + 1] == [stored.record.cursor]:
            del cursors[place]
        if not cursors:
            self._listed.pop(stored.record.caller, None)
        stored.notify()

    def _resize(self, stored: _Job, change: int) -> None:
        stored.size += change
        self._bytes += change
        if change < 0:
            self._freed.add(-change)


def _number(entry: str) -> int:
    """An entry id as a number that grows. Ids look as in Redis; those made here begin with 0."""
    before, _, number = entry.partition("-")
    return (int(before) << 64) + int(number)
