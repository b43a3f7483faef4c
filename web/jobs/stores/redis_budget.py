"""How many bytes jobs take in Redis: requests of those that have not ended have a share, and ended ones are forgotten
earlier where there are too many, the oldest first.

What replicas of commit 31fe71b and before add and end is not counted; it expires, as all ended jobs do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from web.jobs.record import JobRecord
from web.jobs.store import REQUESTS_SHARE, StoreFullError, requests_full
from web.jobs.stores.redis_connection import outages
from web.jobs.stores.redis_keys import RedisKeys
from web.telemetry.store_usage import StoreUsage

FREED_BYTES = 1_048_576
"""At least so much is freed at a time where Redis is full."""

PAGE = 256
"""Most jobs that are read at once."""

Answer = TypeVar("Answer")

RECOUNT_SECONDS = 5
"""Between two counts of the requests: a replica that knows of no budget ends jobs without taking them off."""

_RESERVE = """
local id, deadline, bytes, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local function taken() return tonumber(redis.call('HGET', KEYS[2], 'total') or 0) end
if redis.call('HEXISTS', KEYS[2], id) == 1 then return 1 end
if taken() > 0 and taken() + bytes > most then
    local now = tonumber(redis.call('TIME')[1])
    if now < tonumber(redis.call('HGET', KEYS[2], 'recount') or 0) then return 0 end
    local total = 0
    local sizes = redis.call('HGETALL', KEYS[2])
    for index = 1, #sizes, 2 do
        if redis.call('ZSCORE', KEYS[1], sizes[index]) then
            total = total + sizes[index + 1]
        else
            redis.call('HDEL', KEYS[2], sizes[index])
        end
    end
    redis.call('HSET', KEYS[2], 'total', total, 'recount', now + ARGV[5])
    if total > 0 and total + bytes > most then return 0 end
end
redis.call('ZADD', KEYS[1], deadline, id)
redis.call('HSET', KEYS[2], id, bytes)
redis.call('HINCRBY', KEYS[2], 'total', bytes)
return 1
"""
"""KEYS: `RedisKeys.open`. ARGV: the job, its deadline, the bytes of its request, the most for all requests, and
RECOUNT_SECONDS. The answer is 0 where there is no room."""

_CLOSE = """
redis.call('ZREM', KEYS[1], ARGV[1])
local bytes = redis.call('HGET', KEYS[2], ARGV[1])
if bytes and redis.call('HDEL', KEYS[2], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[2], 'total', 0 - bytes) end
"""
"""KEYS as above; ARGV: the job."""

_FORGET = """
local now = tonumber(redis.call('TIME')[1])
local function forget(id)
    redis.call('ZREM', KEYS[1], id)
    local bytes = redis.call('HGET', KEYS[2], id) or 0
    redis.call('HDEL', KEYS[2], id)
    return redis.call('HINCRBY', KEYS[2], 'total', 0 - bytes)
end
"""

_KEEP = f"""{_FORGET}
local id, bytes, keep, most, own = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
forget(id) -- it may be counted already; and after it Redis refuses nothing for want of memory
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - keep)) do forget(expired) end
redis.call('ZADD', KEYS[1], now + own - keep, id) -- in the order in which they expire
redis.call('HSET', KEYS[2], id, bytes)
local open = redis.call('HGET', KEYS[3], 'total') or 0
local total = redis.call('HINCRBY', KEYS[2], 'total', bytes) + open
local forgotten = {{}}
while total > most do
    local oldest, newer = unpack(redis.call('ZRANGE', KEYS[1], 0, 1))
    if oldest == id then oldest = newer end
    if not oldest then break end
    total = forget(oldest) + open
    table.insert(forgotten, oldest)
end
return forgotten
"""
"""KEYS: `RedisKeys.ended`, and the bytes of open jobs. ARGV: the job, its bytes, seconds that jobs are kept, the most
bytes of all jobs, and seconds that this one is kept. The answer is the jobs that are to be forgotten."""

_FREE = f"""{_FORGET}
local left, forgotten = tonumber(ARGV[1]), {{}}
while left > 0 do
    local oldest, newer = unpack(redis.call('ZRANGE', KEYS[1], 0, 1))
    if not newer then break end
    left = left - (redis.call('HGET', KEYS[2], oldest) or 0)
    forget(oldest)
    table.insert(forgotten, oldest)
end
return forgotten
"""
"""KEYS: `RedisKeys.ended`. ARGV: so many bytes are wanted. The answer as above."""


class RedisBudget:
    """All methods raise an UNAVAILABLE problem in an outage; those with a `pipe` only add commands to it."""

    def __init__(self, redis: Any, keys: RedisKeys, keep_seconds: float, most_bytes: int) -> None:
        self._redis = redis
        self._keys = keys
        self._keep_seconds = round(keep_seconds)
        self._most_bytes = most_bytes
        self._most_request_bytes = most_bytes * REQUESTS_SHARE
        self._reserve = redis.register_script(_RESERVE)
        self._keep = redis.register_script(_KEEP)
        self._free = redis.register_script(_FREE)

    async def open(self, record: JobRecord) -> None:
        """Count a new job's request. Raises OVERLOADED where there is no room for it."""
        arguments = [record.id, record.deadline, record.request_bytes, self._most_request_bytes]
        async with outages(self._redis):
            room = await self._reserve(self._keys.open, [*arguments, RECOUNT_SECONDS])
        if not room:
            raise requests_full(self._most_request_bytes)

    async def open_jobs(self) -> int:
        async with outages(self._redis):
            return int(await self._redis.zcard(self._keys.open[0]))

    async def usage(self) -> StoreUsage:
        """As JobStore.usage. A few fields of each open job are read; one that ends meanwhile may be missed."""
        async with outages(self._redis):
            sizes = [
                int(await self._redis.hget(key, "total") or 0) for key in (self._keys.open[1], self._keys.ended[1])
            ]
        usage = StoreUsage(sum(sizes), self._most_bytes)
        start, jobs = 0, [""]
        while jobs:
            async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
                jobs = await self._redis.zrange(self._keys.open[0], start, start + PAGE - 1)
                for job in jobs:
                    pipe.hmget(self._keys.job(job), "model", "created", "started", "ended")
                for model, created, started, ended in await pipe.execute():
                    if created is not None and ended is None:
                        usage.add(model, "queued" if started is None else "running", float(created))
            start += PAGE
        return usage

    async def overdue(self, now: float) -> list[str]:
        """Some of the open jobs whose deadline has passed."""
        async with outages(self._redis):
            jobs: list[str] = await self._redis.zrangebyscore(self._keys.open[0], "-inf", now, start=0, num=PAGE)
            return jobs

    def close(self, pipe: Any, job: str) -> None:
        """The job has ended, or is not there any more."""
        pipe.eval(_CLOSE, 2, *self._keys.open, job)

    async def keep(self, job: str, job_bytes: int, seconds: int) -> None:
        """Count an ended job that is kept for so many seconds, and forget the oldest ones where it is too much."""
        arguments = [job, job_bytes, self._keep_seconds, self._most_bytes, seconds]
        async with outages(self._redis):
            await self._delete(await self._keep([*self._keys.ended, self._keys.open[1]], arguments))

    async def with_room(self, write: Callable[[], Awaitable[Answer]], size: int) -> Answer:
        """What `write` of so many bytes answers. Where Redis itself is full, ended jobs are forgotten for it, the
        oldest first, but not the last one. Raises StoreFullError where that is not enough."""
        while True:
            try:
                return await write()
            except StoreFullError:
                async with outages(self._redis):
                    forgotten = await self._free(self._keys.ended, [size + FREED_BYTES])
                    await self._delete(forgotten)
                if not forgotten:
                    raise

    def forget(self, pipe: Any, job: str) -> None:
        """An ended job is not there any more."""
        pipe.eval(
            _FORGET + "if redis.call('ZSCORE', KEYS[1], ARGV[1]) then forget(ARGV[1]) end",
            2,
            *self._keys.ended,
            job,
        )

    async def _delete(self, jobs: list[str]) -> None:
        if not jobs:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.delete(self._keys.job(job), self._keys.log(job))
            await pipe.execute()
