"""Each caller's jobs in Redis, in the order in which they were made.

They stand in a sorted set by their cursors, whose order is that of the jobs. A job that expires leaves its cursor
there, which is taken out when the list is read; the set expires with the caller's last job.
"""

from __future__ import annotations

from typing import Any

from web.jobs.record import JobRecord
from web.jobs.stores.redis_connection import outages
from web.jobs.stores.redis_keys import RedisKeys, record_of

MOST_LISTED = 10_000
"""A caller's oldest jobs beyond so many are no longer listed."""

_FIELDS = ("model", "kind", "created", "deadline", "started", "ended", "end", "artifact", "attempts")
"""What is read of each job: all that is short."""

_ADD = """
redis.call('ZADD', KEYS[1], 0, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
"""


class RedisListing:
    """Methods with a `pipe` only add commands to it; the others raise an UNAVAILABLE problem in an outage."""

    def __init__(self, redis: Any, keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys

    def add(self, pipe: Any, record: JobRecord, keep_seconds: float) -> None:
        """`keep_seconds`: how long the job is kept after its deadline."""
        if record.is_listed:
            seconds = round(record.deadline - record.created + keep_seconds) + 1
            pipe.eval(_ADD, 1, self._keys.caller(record.caller), record.cursor, MOST_LISTED, seconds)

    def remove(self, pipe: Any, record: JobRecord) -> None:
        pipe.zrem(self._keys.caller(record.caller), record.cursor)

    async def jobs_of(self, caller: str, limit: int, before: str | None) -> list[JobRecord]:
        jobs: list[JobRecord] = []
        highest = "+" if before is None else f"({before}"
        async with outages(self._redis):
            while len(jobs) < limit:
                cursors = await self._redis.zrevrangebylex(
                    self._keys.caller(caller), highest, "-", 0, limit - len(jobs)
                )
                if not cursors:
                    break
                highest = f"({cursors[-1]}"
                found = await self._read(caller, [cursor.partition("-")[2] for cursor in cursors])
                jobs.extend(filter(None, found))
                gone = [cursor for cursor, job in zip(cursors, found, strict=True) if job is None]
                if gone:
                    await self._redis.zrem(self._keys.caller(caller), *gone)
        return jobs

    async def _read(self, caller: str, ids: list[str]) -> list[JobRecord | None]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in ids:
                pipe.hmget(self._keys.job(job), _FIELDS)
            answers = await pipe.execute()
        unread = {"order": "", "digest": "", "headers": "{}", "caller": caller}
        return [
            record_of(job, unread | {name: value for name, value in zip(_FIELDS, values, strict=True) if value})
            for job, values in zip(ids, answers, strict=True)
        ]
