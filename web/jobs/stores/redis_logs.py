"""Logs of jobs in Redis, each read once for all who watch it in this process."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from web.jobs.record import BEGINNING, LogEntry
from web.jobs.stores.redis_connection import outages
from web.jobs.stores.redis_keys import RedisKeys
from web.jobs.stores.redis_signals import RedisSignals, signalled

POLL_SECONDS = 2.0
"""About the longest that a change of a job goes unnoticed when its message was lost."""

PAGE = 256
"""Most entries that are read at once, and that are kept for watchers."""

CATCH_UP_PAGE = 32
"""Most entries that are read at once for a watcher that is behind; it holds them until its client has taken them."""

WINDOW_BYTES = 1_048_576
"""About the most that is kept of one log for watchers: whoever is further behind reads for itself."""


class RedisLogs:
    """All methods raise an UNAVAILABLE problem in an outage."""

    def __init__(self, redis: Any, keys: RedisKeys, signals: RedisSignals) -> None:
        self._redis = redis
        self._keys = keys
        self._signals = signals
        self._readers: dict[str, _Reader] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        """See JobStore."""
        tip = await self._tip(job) if after != BEGINNING else BEGINNING
        seen, index = min(_number(after), _number(tip)), None  # whatever a client says that it has
        reader = self._readers.get(job)
        if reader is None or reader.task.done():
            reader = self._readers[job] = _Reader(self._redis, self._keys, self._signals, job, _id(seen))
            self._tasks.add(reader.task)
            reader.task.add_done_callback(self._tasks.discard)
        reader.watchers += 1
        try:
            while True:
                changed = reader.changed
                index = reader.index_after(seen) if index is None or index < reader.dropped else index
                if index is None:
                    behind = await _entries(self._redis, self._keys.log(job), _id(seen), CATCH_UP_PAGE)
                    # Nothing there: the log has dropped these entries, too.
                    seen = _number(behind[-1].id) if behind else reader.start
                    for entry in behind:
                        yield entry if not entry.last else await _with_outcome(self._redis, self._keys.job(job), entry)
                        if entry.last:
                            return
                elif index < reader.dropped + len(reader.entries):
                    entry = reader.entries[index - reader.dropped]
                    index, seen = index + 1, _number(entry.id)
                    yield entry
                    if entry.last:
                        return
                elif reader.task.done():
                    if not reader.task.cancelled():  # by `close`
                        reader.task.result()
                    return
                else:
                    await changed.wait()
        finally:
            reader.watchers -= 1
            if not reader.watchers:
                reader.task.cancel()
                if self._readers.get(job) is reader:
                    del self._readers[job]

    async def _tip(self, job: str) -> str:
        """The id of the last entry."""
        async with outages(self._redis):
            found = await self._redis.xrevrange(self._keys.log(job), count=1)
        return found[0][0] if found else BEGINNING


class _Reader:
    """The newest entries of a log. The task ends with the job, or raises what keeps it from reading on."""

    def __init__(self, redis: Any, keys: RedisKeys, signals: RedisSignals, job: str, after: str) -> None:
        self._redis = redis
        self._keys = keys
        self._signals = signals
        self._job = job
        self._bytes = 0
        self._last = after
        self.start = _number(after)
        """The entries after this one are here."""
        self.entries: list[LogEntry] = []
        self.dropped = 0
        """How many entries were here before the first one."""
        self.watchers = 0
        self.changed = asyncio.Event()
        """Set, and replaced by a new one, at every change."""
        self.task = asyncio.create_task(self._read())
        self.task.add_done_callback(self._end)

    def index_after(self, seen: tuple[int, int]) -> int | None:
        """The index of the first entry after this one; None where that may have been dropped."""
        if seen < self.start:
            return None
        return self.dropped + bisect_right(self.entries, seen, key=lambda entry: _number(entry.id))

    async def _read(self) -> None:
        with self._signals.changes(self._job) as signal:
            while True:
                signal.clear()
                async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
                    # The end first: if it is there, the log read after it holds the last entry.
                    pipe.hmget(self._keys.job(self._job), "created", "ended")
                    pipe.xrange(self._keys.log(self._job), min=f"({self._last}", count=PAGE)
                    (created, ended), found = await pipe.execute()
                for entry in _parsed(found):
                    self._add(
                        await _with_outcome(self._redis, self._keys.job(self._job), entry) if entry.last else entry
                    )
                    if entry.last:
                        return
                if found:
                    self._notify()
                if len(found) == PAGE:
                    continue
                if created is None or ended is not None:
                    return
                await signalled(signal, POLL_SECONDS)

    def _add(self, entry: LogEntry) -> None:
        self._last = entry.id
        self.entries.append(entry)
        self._bytes += len(entry.data)
        while len(self.entries) > 1 and (len(self.entries) > PAGE or self._bytes > WINDOW_BYTES):
            oldest = self.entries.pop(0)
            self._bytes -= len(oldest.data)
            self.start = _number(oldest.id)
            self.dropped += 1

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # has been looked at, even if nobody watches any more
        self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


async def _entries(redis: Any, log: str, after: str, count: int) -> list[LogEntry]:
    async with outages(redis):
        return _parsed(await redis.xrange(log, min=f"({after}", count=count))


async def _with_outcome(redis: Any, job_key: str, entry: LogEntry) -> LogEntry:
    """The last entry of a log: its data is in the job's hash, or nowhere in Redis where there is an artifact."""
    async with outages(redis):
        outcome, artifact = await redis.hmget(job_key, "outcome", "artifact")
    return replace(entry, event="result", data="") if artifact else replace(entry, data=outcome or "")


def _parsed(found: Any) -> list[LogEntry]:
    return [LogEntry(entry, fields["event"], fields["data"]) for entry, fields in found]


def _number(entry: str) -> tuple[int, int]:
    """An id of Redis as something that grows."""
    before, _, after = entry.partition("-")
    return int(before), int(after or 0)


def _id(number: tuple[int, int]) -> str:
    return f"{number[0]}-{number[1]}"
