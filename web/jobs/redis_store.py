"""Jobs in Redis or Valkey (6.2 or newer), shared by all replicas.

A job is a hash, its log a stream, the queue of a model a stream with a consumer group: a claim is a pending entry, a
lease that is kept up by claiming it again, and taken over by whoever finds it idle. What changes is published on
a channel, so that one connection wakes everybody here who waits. Retries are the client library's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from contract import JobState, ProblemError, problems
from web.jobs.store import BEGINNING, Claim, JobRecord, JobStore, LogEntry, last_event

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""A claim that has not been kept up for so long belongs to whoever comes first."""

POLL_SECONDS = 2.0
"""Longest that a change goes unnoticed when the message that tells it was lost."""

BLOCK_SECONDS = 5.0
"""Of one wait for the next job."""

MOST_BACKOFF_SECONDS = 1.0

CONNECT_SECONDS = 5.0

_GROUP = "web"
_ANYONE = "replica"
"""The one consumer of each group: how long an entry is idle tells whose it is, and replicas come and go."""

_CHANGED = "shangcai:changed"
_ENDED = "shangcai:ended"
_NEWS = "shangcai:news"
_OPEN = "shangcai:open"
_STATE = ("created", "deadline", "model", "entry", "started", "told", "ended")
_PAGE = 256
_MOST_POSITION = 1_000


class RedisStore(JobStore):
    """`keep_seconds` after its end a job is forgotten. `patience_seconds` is how long an outage is waited out."""

    shared = True

    def __init__(self, url: str, keep_seconds: float, log_entries: int, patience_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._log_entries = log_entries
        retries = max(1, round(patience_seconds / MOST_BACKOFF_SECONDS))
        self._redis: Any = Redis.from_url(  # its types name the forms of every protocol
            url,
            decode_responses=True,
            protocol=2,  # some answers have another form in the third
            retry=Retry(ExponentialBackoff(cap=MOST_BACKOFF_SECONDS, base=0.05), retries),
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=BLOCK_SECONDS + CONNECT_SECONDS,
            health_check_interval=30,
        )
        self._bells: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self._listening: asyncio.Task[None] | None = None
        self._groups: set[str] = set()

    async def open(self) -> None:
        # Not waited for: what needs no store is served without it, and what does says so.
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening is not None:
            while not self._listening.done():  # see _outages
                self._listening.cancel()
                await asyncio.wait({self._listening}, timeout=0.1)
        await self._redis.aclose()

    async def spread(self, news: str) -> None:
        with _outages():
            await self._redis.publish(_NEWS, news)

    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        there: JobRecord | None = None

        async def store(pipe: Any) -> None:
            nonlocal there
            there = await self._read(pipe, record.id)
            pipe.multi()
            if there is not None:
                return
            pipe.hset(_job(record.id), mapping=_fields(record))
            pipe.expireat(_job(record.id), self._forgotten(record.deadline))
            pipe.zadd(_OPEN, {record.id: record.deadline})
            if queued:
                pipe.xadd(_queue(record.model), {"job": record.id})

        with _outages():
            await self._join(record.model)
            answers = await self._redis.transaction(store, _job(record.id))
            if there is None and queued:
                await self._redis.hset(_job(record.id), "entry", answers[-1])
        return there or record

    async def get(self, job: str) -> JobRecord | None:
        with _outages():
            return await self._read(self._redis, job)

    async def position(self, record: JobRecord) -> int | None:
        if record.state != "queued":
            return None
        with _outages():
            entry = await self._redis.hget(_job(record.id), "entry")
            if entry is None:
                return None
            line = await self._redis.xrange(_queue(record.model), max=entry, count=_MOST_POSITION + 1)
        if len(line) > _MOST_POSITION:
            return _MOST_POSITION
        return len(line) - 1 if line and line[-1][0] == entry else None

    async def open_jobs(self) -> int:
        with _outages():
            return int(await self._redis.zcard(_OPEN))

    async def overdue(self, now: float) -> list[str]:
        with _outages():
            jobs: list[str] = await self._redis.zrangebyscore(_OPEN, "-inf", now, start=0, num=_PAGE)
            return jobs

    # The log

    async def tell(self, job: str, entries: Sequence[tuple[str, str]]) -> None:
        def change(pipe: Any, state: Mapping[str, Any]) -> bool:
            self._log(pipe, job, state, entries)
            return True

        await self._change(job, change)

    async def advance(self, job: str, told: int, entry: Callable[[int], tuple[str, str]]) -> None:
        def change(pipe: Any, state: Mapping[str, Any]) -> bool:
            before = int(state["told"] or 0)
            if before < told:
                pipe.hset(_job(job), "told", str(told))
                self._log(pipe, job, state, [entry(before)])
            return before < told

        await self._change(job, change)

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        with self._bell(_CHANGED, job) as bell:
            while True:
                bell.clear()
                with _outages():
                    # Asked first: what ends in between has its last entry in the log by the time that is read.
                    record = await self._read(self._redis, job)
                    found = await self._redis.xrange(_told(job), min=f"({after}", count=_PAGE)
                for after, fields in found:
                    entry = LogEntry(after, fields["event"], fields["data"])
                    if entry.last:  # the outcome is kept once
                        record = record if record and record.outcome else await self.get(job)
                        outcome = record.outcome if record else None
                        yield replace(entry, data=outcome or "")
                        return
                    yield entry
                if not found and (record is None or record.ended is not None):
                    return
                if not found:
                    await _rung(bell, POLL_SECONDS)

    # The way through the states

    async def start(self, job: str, now: float) -> bool:
        def change(pipe: Any, state: Mapping[str, Any]) -> bool:
            if state["started"] is not None:
                return False
            pipe.hset(_job(job), "started", str(now))
            pipe.hincrby(_job(job), "attempts", 1)
            pipe.publish(_CHANGED, job)
            return True

        return await self._change(job, change)

    async def restart(self, job: str) -> None:
        def change(pipe: Any, _state: Mapping[str, Any]) -> bool:
            pipe.hdel(_job(job), "started", "told")
            pipe.publish(_CHANGED, job)
            return True

        await self._change(job, change)

    async def finish(self, job: str, end: JobState, outcome: str, now: float) -> bool:
        def change(pipe: Any, state: Mapping[str, Any]) -> bool:
            keep = round(self._keep_seconds) + 1
            pipe.hset(_job(job), mapping={"end": end, "ended": str(now), "outcome": outcome})
            pipe.xadd(_told(job), {"event": last_event(end), "data": ""})
            pipe.zrem(_OPEN, job)
            if state["entry"] is not None:  # it holds up nobody any more
                pipe.xack(_queue(state["model"]), _GROUP, state["entry"])
                pipe.xdel(_queue(state["model"]), state["entry"])
            pipe.expire(_job(job), keep)
            pipe.expire(_told(job), keep)
            pipe.publish(_CHANGED, job)
            pipe.publish(_ENDED, job)
            return True

        ended = await self._change(job, change)
        if not ended:  # it may have been forgotten while nobody was there to end it
            with _outages():
                await self._redis.zrem(_OPEN, job)
        return ended

    async def ended(self, job: str) -> None:
        with self._bell(_ENDED, job) as bell:
            while True:
                bell.clear()
                record = await self.get(job)
                if record is None or record.ended is not None:
                    return
                await _rung(bell, 2 * POLL_SECONDS)

    # The queue

    async def take(self, model: str) -> Claim:
        while True:
            with _outages():
                await self._join(model)
                try:
                    claim = await self._orphan(model) or await self._next(model)
                except ResponseError as error:
                    if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                        raise
                    self._groups.discard(model)  # the stream is gone, with all that the server knew
                    continue
            if claim is not None:
                return claim

    async def keep(self, claims: Sequence[Claim]) -> None:
        with _outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                for claim in claims:
                    pipe.xclaim(_queue(claim.model), _GROUP, _ANYONE, 0, [claim.entry], justid=True)
                await pipe.execute(raise_on_error=False)

    async def done(self, claim: Claim) -> None:
        with _outages():
            async with self._redis.pipeline() as pipe:
                pipe.xack(_queue(claim.model), _GROUP, claim.entry)
                pipe.xdel(_queue(claim.model), claim.entry)
                await pipe.execute()

    async def release(self, claim: Claim) -> None:
        idle = round(1e3 * LEASE_SECONDS)
        with _outages():
            await self._redis.xclaim(_queue(claim.model), _GROUP, _ANYONE, 0, [claim.entry], idle=idle, justid=True)

    async def _join(self, model: str) -> None:
        """The consumer group is there."""
        if model in self._groups:
            return
        try:
            await self._redis.xgroup_create(_queue(model), _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._groups.add(model)

    async def _orphan(self, model: str) -> Claim | None:
        lease = round(1e3 * LEASE_SECONDS)
        queue = _queue(model)
        # XAUTOCLAIM would do it in one, but looks at ten entries only, which may all be kept up.
        idle = await self._redis.xpending_range(queue, _GROUP, min="-", max="+", count=1, idle=lease)
        entries = [entry["message_id"] for entry in idle]
        return _claim(model, await self._redis.xclaim(queue, _GROUP, _ANYONE, lease, entries)) if entries else None

    async def _next(self, model: str) -> Claim | None:
        block = round(1e3 * BLOCK_SECONDS)
        found = await self._redis.xreadgroup(_GROUP, _ANYONE, {_queue(model): ">"}, count=1, block=block)
        return _claim(model, found[0][1]) if found else None

    # Behind all of them

    async def _change(self, job: str, change: Callable[[Any, Mapping[str, Any]], bool]) -> bool:
        """Do it in one transaction with the look at whether the job is still open. `change` gets some of its fields,
        and says whether it has changed anything."""
        changed = False

        async def guarded(pipe: Any) -> None:
            nonlocal changed
            state = dict(zip(_STATE, await pipe.hmget(_job(job), _STATE), strict=True))
            pipe.multi()
            changed = state["created"] is not None and state["ended"] is None and change(pipe, state)

        with _outages():
            await self._redis.transaction(guarded, _job(job))
        return changed

    def _log(self, pipe: Any, job: str, state: Mapping[str, Any], entries: Sequence[tuple[str, str]]) -> None:
        for event, data in entries:
            pipe.xadd(_told(job), {"event": event, "data": data}, maxlen=self._log_entries, approximate=True)
        pipe.expireat(_told(job), self._forgotten(float(state["deadline"])))
        pipe.publish(_CHANGED, job)

    def _forgotten(self, deadline: float) -> int:
        """When, at the latest; earlier where it has ended earlier."""
        return round(deadline + self._keep_seconds) + 1

    async def _read(self, client: Any, job: str) -> JobRecord | None:
        fields = await client.hgetall(_job(job))
        return _record(job, fields) if fields.get("created") else None

    @contextmanager
    def _bell(self, channel: str, job: str) -> Iterator[asyncio.Event]:
        bell = asyncio.Event()
        bells = self._bells[channel, job]
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells:
                self._bells.pop((channel, job), None)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as messages:
                    await messages.subscribe(_CHANGED, _ENDED, _NEWS)
                    async for message in messages.listen():
                        if message["channel"] == _NEWS:
                            self.hear(message["data"])
                        for bell in self._bells.get((message["channel"], message["data"]), ()):
                            bell.set()
            except RedisError as error:
                log.warning("changes are not heard of: %s", error)
                await asyncio.sleep(MOST_BACKOFF_SECONDS)


@contextmanager
def _outages() -> Iterator[None]:
    """What is left of an outage when the client library has given up; to be full or read-only is one, too.

    On Python 3.11 asyncio.wait_for, by which the library sends, loses a cancellation that comes just when something is
    sent: whoever was cancelled would go on for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        yield
        if task.cancelling() > cancelled:
            raise asyncio.CancelledError
    except (RedisError, OSError) as error:
        log.warning("the store: %s", error)
        problem = ProblemError(problems.UNAVAILABLE, "The store of the generations cannot be reached.", retry_after=5)
        raise problem from error


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        pass


def _claim(model: str, found: Any) -> Claim | None:
    for entry, fields in found or ():
        if fields:
            return Claim(model, fields["job"], entry)
    return None


def _fields(record: JobRecord) -> dict[str, str]:
    return {
        "model": record.model,
        "kind": record.kind,
        "order": record.order,
        "digest": record.digest,
        "created": str(record.created),
        "deadline": str(record.deadline),
        "headers": json.dumps(record.headers),
    }


def _record(job: str, fields: dict[str, Any]) -> JobRecord:
    return JobRecord(
        id=job,
        model=fields["model"],
        kind=fields["kind"],
        order=fields["order"],
        digest=fields["digest"],
        created=float(fields["created"]),
        deadline=float(fields["deadline"]),
        headers=json.loads(fields["headers"]),
        started=float(fields["started"]) if "started" in fields else None,
        ended=float(fields["ended"]) if "ended" in fields else None,
        end=fields.get("end"),
        outcome=fields.get("outcome"),
        attempts=int(fields.get("attempts", 0)),
    )


def _job(job: str) -> str:
    return f"shangcai:job:{job}"


def _told(job: str) -> str:
    return f"shangcai:log:{job}"


def _queue(model: str) -> str:
    return f"shangcai:queue:{model}"
