"""Deliveries that are due, in a sorted set of Redis that all replicas share."""

from __future__ import annotations

from typing import Any

from web.jobs.due_list import DueDelivery, DueList
from web.jobs.stores.redis_connection import outages
from web.jobs.stores.redis_keys import RedisKeys

_CLAIM = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, job in ipairs(due) do
    redis.call('ZREM', KEYS[1], job) -- after it Redis refuses nothing for want of memory
    redis.call('ZADD', KEYS[1], ARGV[2], job)
end
return due
"""
"""The time, the end of the lease, and how many at most."""

_SETTLE = """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or -1) ~= tonumber(ARGV[2]) then return end
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
"""
"""The job, the end of its lease, and when it is due again, or "". """

_NOTE = """
if redis.call('HGET', KEYS[1], 'created') ~= ARGV[1] then return end
redis.call('HDEL', KEYS[1], 'webhook')
redis.call('HSET', KEYS[1], 'webhook', ARGV[2])
"""
"""Of a job's hash: when it was created, so that no other job is meant, and what has become of its webhook."""


class RedisDueList(DueList):
    """Methods with a `pipe` only add commands to it."""

    def __init__(self, redis: Any, keys: RedisKeys) -> None:
        self._redis = redis
        self._key = keys.due
        self._job = keys.job
        self._claim = redis.register_script(_CLAIM)
        self._settle = redis.register_script(_SETTLE)
        self._note = redis.register_script(_NOTE)

    def add(self, pipe: Any, job: str, at: float) -> None:
        pipe.zadd(self._key, {job: at})

    def hasten(self, pipe: Any, job: str, at: float) -> None:
        """It is due then, if it is to be delivered at all. In one Redis the script that ends a job does this itself."""
        pipe.zadd(self._key, {job: at}, xx=True)

    async def claim(self, now: float, lease_seconds: float, most: int) -> list[DueDelivery]:
        until = now + lease_seconds
        async with outages(self._redis):
            jobs = await self._claim([self._key], [now, until, most])
        return [DueDelivery(job, until) for job in jobs]

    async def settle(self, delivery: DueDelivery, again: float | None = None) -> None:
        async with outages(self._redis):
            await self._settle([self._key], [delivery.job, delivery.until, "" if again is None else again])

    async def note(self, job: str, created: float, webhook: str) -> None:
        """What has become of a job's webhook, as JSON. Nothing where the job is another one by now, or forgotten."""
        async with outages(self._redis):
            await self._note([self._job(job)], [str(created), webhook])
