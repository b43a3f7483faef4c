"""Jobs in Redis or Valkey (6.2 or newer), shared by all replicas. `web.jobs.stores.redis_keys` says what is stored."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from contract import JobState, ProblemError, Webhook
from web.jobs.background_loops import BackgroundLoops
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry, QueuePlace, last_event
from web.jobs.store import ClaimLost, JobStore
from web.jobs.stores.due_lists.redis_due_list import RedisDueList
from web.jobs.stores.redis_budget import RedisBudget
from web.jobs.stores.redis_connection import RedisClock, SharedSecret, connect, outages
from web.jobs.stores.redis_documents import RedisDocuments
from web.jobs.stores.redis_keys import BROADCAST, RUN_FIELDS, RedisKeys, fields_of, record_of
from web.jobs.stores.redis_listing import RedisListing
from web.jobs.stores.redis_logs import RedisLogs
from web.jobs.stores.redis_queue import RedisQueue
from web.jobs.stores.redis_scripts import BEHIND, LOST, SHORT_END, WRITTEN, RedisScripts
from web.jobs.stores.redis_signals import RedisSignals, signalled
from web.metrics import JOBS_ENDED
from web.telemetry.store_usage import StoreUsage
from wire.shared_store.address import parse_address

POLL_SECONDS = 4.0
"""About the longest that the end of a job goes unnoticed when its message was lost."""

CLOSE_SECONDS = 1.0
"""Longest that closing waits for the ends of jobs that are being written, as in an outage of Redis."""


class RedisStore(JobStore):
    """Keeps up to about `most_bytes`. Forgets a job `keep_seconds` after its end, or earlier where there is more; but
    never the job that ended last. A log holds about the newest `log_entries` events. An outage of up to
    `patience_seconds` is waited out."""

    shared = True

    def __init__(
        self,
        url: str,
        keep_seconds: float,
        log_entries: int,
        patience_seconds: float,
        most_bytes: int = 268_435_456,
        background: BackgroundLoops | None = None,
    ) -> None:
        super().__init__()
        self._keep_seconds = keep_seconds
        self._bounds = log_entries, keep_seconds  # of a log
        self._redis = connect(url, patience_seconds)
        self._keys = RedisKeys(cluster=parse_address(url).kind == "cluster")
        self._scripts = RedisScripts(self._redis)
        self._replica = secrets.token_hex(4)
        self._writes = itertools.count(1)
        self._queue = RedisQueue(self._redis, self._keys)
        self._listing = RedisListing(self._redis, self._keys)
        self._budget = RedisBudget(self._redis, self._keys, keep_seconds, most_bytes)
        self.due: RedisDueList = RedisDueList(self._redis, self._keys)
        self.documents = RedisDocuments(self._redis)
        self._clock = RedisClock(self._redis)
        self._secret = SharedSecret(self._redis)
        self._signals = RedisSignals(self._redis, self._keys, self._deliver, background or BackgroundLoops())
        self._logs = RedisLogs(self._redis, self._keys, self._signals)
        self._finishing: set[asyncio.Task[bool]] = set()

    async def open(self) -> None:
        self._signals.open()  # does not wait for Redis: in an outage web still serves what needs no store

    async def close(self) -> None:
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=CLOSE_SECONDS)
        for finishing in self._finishing:
            finishing.cancel()
        await self._logs.close()
        await self._signals.close()
        await self._redis.aclose()

    async def now(self) -> float:
        return await self._clock.now()

    async def secret(self) -> str:
        return await self._secret.get()

    async def broadcast(self, message: str) -> None:
        async with outages(self._redis):
            await self._redis.publish(BROADCAST, message)

    # Jobs

    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        existing = await self.get(record.id)
        if existing is not None and not record.replaces(existing):
            return existing
        size = record.request_bytes
        await self._budget.with_room(lambda: self._budget.open(record), size)

        elsewhere: Any = None

        async def store(pipe: Any) -> None:
            nonlocal existing, elsewhere
            existing = await self._read(pipe, record.id)
            pipe.multi()
            # A cluster has the rest on other nodes: it follows, and MULTI is for the job alone.
            elsewhere = self._redis.pipeline(transaction=False) if self._keys.cluster else pipe
            if self._keys.cluster and existing is not None and existing.created == record.created:
                existing = None  # this one, whose answer was lost
            if existing is not None and record.replaces(existing):
                self._listing.remove(elsewhere, existing)
                # Or it could be deleted, as one that has ended, while it runs.
                self._budget.forget(elsewhere, record.id)
                existing = None
                pipe.hdel(self._keys.job(record.id), *RUN_FIELDS)
                pipe.hincrby(self._keys.job(record.id), "generation", 1)
                pipe.delete(self._keys.log(record.id))
            if existing is not None:
                return
            pipe.hset(self._keys.job(record.id), mapping=fields_of(record))
            pipe.expireat(self._keys.job(record.id), round(record.deadline + self._kept(record)) + 1)
            self._listing.add(elsewhere, record, self._kept(record))
            if record.webhook is not None:
                self.due.add(elsewhere, record.id, record.deadline)
            if queued:
                self._queue.enqueue(elsewhere, record)

        async def write() -> None:
            async with outages(self._redis):
                answers = await self._redis.transaction(store, self._keys.job(record.id))
                if existing is None and self._keys.cluster:
                    answers = await elsewhere.execute()
                if existing is None and queued:
                    await self._redis.hset(self._keys.job(record.id), "entry", answers[-1])

        await self._budget.with_room(write, size)
        return existing or record

    async def get(self, job: str) -> JobRecord | None:
        async with outages(self._redis):
            return await self._read(self._redis, job)

    async def jobs_of(self, caller: str, limit: int, before: str | None = None) -> list[JobRecord]:
        return await self._listing.jobs_of(caller, limit, before)

    async def delete(self, record: JobRecord) -> None:
        async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._keys.job(record.id), self._keys.log(record.id))
            self._listing.remove(pipe, record)
            self._budget.forget(pipe, record.id)
            await pipe.execute()

    async def place(self, record: JobRecord) -> QueuePlace | None:
        return await self._queue.place(record) if record.state == "queued" else None

    async def open_jobs(self) -> int:
        return await self._budget.open_jobs()

    async def usage(self) -> StoreUsage:
        return await self._budget.usage()

    async def overdue(self, now: float) -> list[str]:
        return await self._budget.overdue(now)

    # The log

    async def append(self, job: str, entries: Sequence[tuple[str, str]], generation: int | None = None) -> None:
        await self._write(self._scripts.append, job, generation, *self._bounds, *itertools.chain(*entries))

    async def append_progress(
        self, job: str, reached: int, entry: Callable[[int], tuple[str, str]], generation: int | None = None
    ) -> None:
        async with outages(self._redis):
            before = int(await self._redis.hget(self._keys.job(job), "told") or 0)
        while before < reached:
            code, *told = await self._write(
                self._scripts.append_progress, job, generation, *self._bounds, before, reached, *entry(before)
            )
            if code != BEHIND:
                return
            [before] = told

    def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        return self._logs.watch(job, after)

    # From state to state

    async def start(self, job: str, now: float, generation: int | None = None) -> bool:
        return bool((await self._write(self._scripts.start, job, generation, now))[0] == WRITTEN)

    async def reset(self, job: str, generation: int | None = None, attempts: int = 0) -> None:
        await self._write(self._scripts.reset, job, generation, attempts)

    async def finish(
        self,
        job: str,
        end: JobState,
        outcome: str,
        now: float,
        generation: int | None = None,
        artifact: str | None = None,
    ) -> bool:
        end = "failed" if artifact else end  # see redis_keys
        # Whoever ends a job may be cancelled because it has ended; it must be counted all the same.
        finishing = asyncio.create_task(self._finish(job, end, outcome, now, generation, artifact))
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finished)
        return await asyncio.shield(finishing)

    def _finished(self, task: asyncio.Task[bool]) -> None:
        self._finishing.discard(task)
        if not task.cancelled():
            task.exception()  # has been looked at, even if nobody waits any more

    async def _finish(
        self, job: str, end: JobState, outcome: str, now: float, generation: int | None, artifact: str | None
    ) -> bool:
        arguments = round(self._keep_seconds) + 1, end, now, outcome, last_event(end), SHORT_END, artifact or ""
        code, *rest = await self._write(self._scripts.finish, job, generation, *arguments)
        if code == WRITTEN:
            JOBS_ENDED.labels(rest[1], "completed" if artifact else end).inc()
        # A full Redis takes no MULTI.
        async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
            self._budget.close(pipe, job)  # not finished, it may have expired while no replica was there to end it
            if code == WRITTEN and rest[2] is not None:
                self._queue.dequeue(pipe, *rest[1:3])
            if code == WRITTEN and self._keys.cluster:
                self.due.hasten(pipe, job, now)
            await pipe.execute()
        if code == WRITTEN:
            with suppress(ProblemError):  # it has ended; uncounted it is forgotten when its time is over
                await self._budget.keep(job, rest[0], rest[3])
        return bool(code == WRITTEN)

    async def note_webhook(self, record: JobRecord, webhook: Webhook) -> None:
        await self.due.note(record.id, record.created, webhook.model_dump_json())

    async def wait_for_end(self, job: str) -> None:
        with self._signals.end(job) as signal:
            while True:
                signal.clear()
                async with outages(self._redis):
                    created, ended = await self._redis.hmget(self._keys.job(job), "created", "ended")
                if created is None or ended is not None:
                    return
                await signalled(signal, POLL_SECONDS)

    # The queue

    async def claim(self, model: str, but_not: Collection[str] = ()) -> Claim | None:
        claim = await self._queue.claim(model, but_not)
        if claim is None:
            return None
        async with outages(self._redis):
            answer = await self._scripts.claim([self._keys.job(claim.job)], [self._replica, claim.entry])
        return replace(claim, generation=answer[0], taken_over=answer[1] == 1)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
            for claim in claims:
                pipe.hget(self._keys.job(claim.job), "generation")
            generations = await pipe.execute()
        lost = [claim for claim, now in zip(claims, generations, strict=True) if int(now or 0) > claim.generation]
        await self._queue.renew([claim for claim in claims if claim not in lost])
        return lost

    async def acknowledge(self, claim: Claim) -> None:
        await self._queue.acknowledge(claim)

    async def release(self, claim: Claim) -> None:
        async with outages(self._redis):
            held = await self._scripts.release([self._keys.job(claim.job)], [claim.generation])
        if held != LOST:
            await self._queue.release(claim)

    async def _write(self, script: Any, job: str, generation: int | None, *arguments: object) -> list[Any]:
        """What the script answers. Raises ClaimLost where the job was claimed again since this generation."""
        number, holds = f"{self._replica}-{next(self._writes)}", "" if generation is None else generation
        keys = [self._keys.job(job), self._keys.log(job), *([] if self._keys.cluster else [self._keys.due])]

        async def write() -> list[Any]:
            async with outages(self._redis):
                answer: list[Any] = await script(keys, [number, holds, job, self._keys.changes(job), *arguments])
            return answer

        answer = await self._budget.with_room(write, sum(len(str(argument)) for argument in arguments))
        if answer[0] == LOST:
            raise ClaimLost(job)
        return answer

    def _kept(self, record: JobRecord) -> float:
        """How long it is kept after its end, or an open one after its deadline."""
        return self._keep_seconds if record.keep_seconds is None else record.keep_seconds

    async def _read(self, client: Any, job: str) -> JobRecord | None:
        return record_of(job, await client.hgetall(self._keys.job(job)))
