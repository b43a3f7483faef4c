"""Jobs in Redis or Valkey (6.2 or newer), shared by all replicas. `web.jobs.stores.redis_keys` says what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from contract import JobState
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry, last_event
from web.jobs.store import JobStore
from web.jobs.stores.redis_connection import connect, outages
from web.jobs.stores.redis_keys import (
    BROADCAST,
    CHANGE_FIELDS,
    CHANGED,
    ENDED,
    OPEN_JOBS,
    fields_of,
    job_key,
    log_key,
    record_of,
)
from web.jobs.stores.redis_queue import RedisQueue
from web.jobs.stores.redis_signals import RedisSignals, signalled

POLL_SECONDS = 2.0
"""Longest that a change of a job goes unnoticed when its message was lost; twice as long for its end."""

PAGE = 256
"""Most entries and jobs that are read at once."""


class RedisStore(JobStore):
    """Forgets a job `keep_seconds` after its end. A log holds about the newest `log_entries` events. An outage of up to
    `patience_seconds` is waited out."""

    shared = True

    def __init__(self, url: str, keep_seconds: float, log_entries: int, patience_seconds: float) -> None:
        super().__init__()
        self._keep_seconds = keep_seconds
        self._log_entries = log_entries
        self._redis = connect(url, patience_seconds)
        self._queue = RedisQueue(self._redis)
        self._signals = RedisSignals(self._redis, self._deliver)

    async def open(self) -> None:
        self._signals.open()  # does not wait for Redis: in an outage web still serves what needs no store

    async def close(self) -> None:
        await self._signals.close()
        await self._redis.aclose()

    async def broadcast(self, message: str) -> None:
        with outages():
            await self._redis.publish(BROADCAST, message)

    # Jobs

    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        existing: JobRecord | None = None

        async def store(pipe: Any) -> None:
            nonlocal existing
            existing = await self._read(pipe, record.id)
            pipe.multi()
            if existing is not None:
                return
            pipe.hset(job_key(record.id), mapping=fields_of(record))
            pipe.expireat(job_key(record.id), self._latest_expiry(record.deadline))
            pipe.zadd(OPEN_JOBS, {record.id: record.deadline})
            if queued:
                self._queue.enqueue(pipe, record.model, record.id)

        with outages():
            await self._queue.create_group(record.model)
            answers = await self._redis.transaction(store, job_key(record.id))
            if existing is None and queued:
                await self._redis.hset(job_key(record.id), "entry", answers[-1])
        return existing or record

    async def get(self, job: str) -> JobRecord | None:
        with outages():
            return await self._read(self._redis, job)

    async def position(self, record: JobRecord) -> int | None:
        return await self._queue.position(record.model, record.id) if record.state == "queued" else None

    async def open_jobs(self) -> int:
        with outages():
            return int(await self._redis.zcard(OPEN_JOBS))

    async def overdue(self, now: float) -> list[str]:
        with outages():
            jobs: list[str] = await self._redis.zrangebyscore(OPEN_JOBS, "-inf", now, start=0, num=PAGE)
            return jobs

    # The log

    async def append(self, job: str, entries: Sequence[tuple[str, str]]) -> None:
        def change(pipe: Any, fields: Mapping[str, Any]) -> bool:
            self._append(pipe, job, fields, entries)
            return True

        await self._change(job, change)

    async def append_progress(self, job: str, reached: int, entry: Callable[[int], tuple[str, str]]) -> None:
        def change(pipe: Any, fields: Mapping[str, Any]) -> bool:
            before = int(fields["told"] or 0)
            if before < reached:
                pipe.hset(job_key(job), "told", str(reached))
                self._append(pipe, job, fields, [entry(before)])
            return before < reached

        await self._change(job, change)

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        with self._signals.subscribed(CHANGED, job) as signal:
            while True:
                signal.clear()
                with outages():
                    # The record first: if it has ended, the log read after it holds the last entry.
                    record = await self._read(self._redis, job)
                    found = await self._redis.xrange(log_key(job), min=f"({after}", count=PAGE)
                for after, fields in found:
                    entry = LogEntry(after, fields["event"], fields["data"])
                    if entry.last:  # the record holds the outcome
                        record = record if record and record.outcome else await self.get(job)
                        outcome = record.outcome if record else None
                        yield replace(entry, data=outcome or "")
                        return
                    yield entry
                if not found and (record is None or record.ended is not None):
                    return
                if not found:
                    await signalled(signal, POLL_SECONDS)

    # From state to state

    async def start(self, job: str, now: float) -> bool:
        def change(pipe: Any, fields: Mapping[str, Any]) -> bool:
            if fields["started"] is not None:
                return False
            pipe.hset(job_key(job), "started", str(now))
            pipe.hincrby(job_key(job), "attempts", 1)
            pipe.publish(CHANGED, job)
            return True

        return await self._change(job, change)

    async def reset(self, job: str) -> None:
        def change(pipe: Any, _fields: Mapping[str, Any]) -> bool:
            pipe.hdel(job_key(job), "started", "told")
            pipe.publish(CHANGED, job)
            return True

        await self._change(job, change)

    async def finish(self, job: str, end: JobState, outcome: str, now: float) -> bool:
        def change(pipe: Any, fields: Mapping[str, Any]) -> bool:
            keep = round(self._keep_seconds) + 1
            pipe.hset(job_key(job), mapping={"end": end, "ended": str(now), "outcome": outcome})
            pipe.xadd(log_key(job), {"event": last_event(end), "data": ""})
            pipe.zrem(OPEN_JOBS, job)
            if fields["entry"] is not None:
                self._queue.dequeue(pipe, fields["model"], fields["entry"])
            pipe.expire(job_key(job), keep)
            pipe.expire(log_key(job), keep)
            pipe.publish(CHANGED, job)
            pipe.publish(ENDED, job)
            return True

        finished = await self._change(job, change)
        if not finished:  # the job may have expired while no replica was there to end it
            with outages():
                await self._redis.zrem(OPEN_JOBS, job)
        return finished

    async def wait_for_end(self, job: str) -> None:
        with self._signals.subscribed(ENDED, job) as signal:
            while True:
                signal.clear()
                record = await self.get(job)
                if record is None or record.ended is not None:
                    return
                await signalled(signal, 2 * POLL_SECONDS)

    # The queue

    async def claim(self, model: str) -> Claim:
        return await self._queue.claim(model)

    async def renew(self, claims: Sequence[Claim]) -> None:
        await self._queue.renew(claims)

    async def acknowledge(self, claim: Claim) -> None:
        await self._queue.acknowledge(claim)

    async def release(self, claim: Claim) -> None:
        await self._queue.release(claim)

    async def _change(self, job: str, change: Callable[[Any, Mapping[str, Any]], bool]) -> bool:
        """Apply `change` to a job that has not ended, in one transaction with reading it. `change` gets a pipeline and
        the job's CHANGE_FIELDS, and returns whether it has changed anything; it is called again after a conflict."""
        changed = False

        async def guarded(pipe: Any) -> None:
            nonlocal changed
            fields = dict(zip(CHANGE_FIELDS, await pipe.hmget(job_key(job), CHANGE_FIELDS), strict=True))
            pipe.multi()
            changed = fields["created"] is not None and fields["ended"] is None and change(pipe, fields)

        with outages():
            await self._redis.transaction(guarded, job_key(job))
        return changed

    def _append(self, pipe: Any, job: str, fields: Mapping[str, Any], entries: Sequence[tuple[str, str]]) -> None:
        for event, data in entries:
            pipe.xadd(log_key(job), {"event": event, "data": data}, maxlen=self._log_entries, approximate=True)
        pipe.expireat(log_key(job), self._latest_expiry(float(fields["deadline"])))
        pipe.publish(CHANGED, job)

    def _latest_expiry(self, deadline: float) -> int:
        """When an open job is forgotten, in seconds since 1970; its end sets an earlier time."""
        return round(deadline + self._keep_seconds) + 1

    async def _read(self, client: Any, job: str) -> JobRecord | None:
        return record_of(job, await client.hgetall(job_key(job)))
