"""Each model's queue in Redis: a stream with a consumer group.

A claim is a pending entry of the group. Its lease is the time since it was delivered: renewing delivers it once more,
and whoever finds an entry idle for longer than the lease claims it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from web.jobs.record import Claim
from web.jobs.stores.redis_connection import BLOCK_SECONDS, outages
from web.jobs.stores.redis_keys import CONSUMER, GROUP, job_key, queue_key

LEASE_SECONDS = 15.0
"""A claim that was not renewed for so long is anybody's."""

MOST_POSITION = 1_000
"""Positions behind this one are not counted."""


class RedisQueue:
    """All methods raise an UNAVAILABLE problem in an outage; those with a `pipe` only add commands to it."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._groups: set[str] = set()

    async def create_group(self, model: str) -> None:
        """Make sure that the model's queue has its consumer group. Raises what Redis raises."""
        if model in self._groups:
            return
        try:
            await self._redis.xgroup_create(queue_key(model), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._groups.add(model)

    def enqueue(self, pipe: Any, model: str, job: str) -> None:
        pipe.xadd(queue_key(model), {"job": job})

    def dequeue(self, pipe: Any, model: str, entry: str) -> None:
        pipe.xack(queue_key(model), GROUP, entry)
        pipe.xdel(queue_key(model), entry)

    async def position(self, model: str, job: str) -> int | None:
        with outages():
            entry = await self._redis.hget(job_key(job), "entry")
            if entry is None:
                return None
            queue = await self._redis.xrange(queue_key(model), max=entry, count=MOST_POSITION + 1)
        if len(queue) > MOST_POSITION:
            return MOST_POSITION
        return len(queue) - 1 if queue and queue[-1][0] == entry else None

    async def claim(self, model: str) -> Claim | None:
        while True:
            with outages():
                await self.create_group(model)
                try:
                    claim = await self._claim_expired(model) or await self._claim_next(model)
                except ResponseError as error:
                    if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                        raise
                    self._groups.discard(model)  # Redis has lost the stream, and everything else
                    continue
            return claim

    async def renew(self, claims: Sequence[Claim]) -> None:
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                for claim in claims:
                    pipe.xclaim(queue_key(claim.model), GROUP, CONSUMER, 0, [claim.entry], justid=True)
                await pipe.execute(raise_on_error=False)

    async def acknowledge(self, claim: Claim) -> None:
        with outages():
            async with self._redis.pipeline() as pipe:
                self.dequeue(pipe, claim.model, claim.entry)
                await pipe.execute()

    async def release(self, claim: Claim) -> None:
        idle = round(1e3 * LEASE_SECONDS)
        with outages():
            await self._redis.xclaim(queue_key(claim.model), GROUP, CONSUMER, 0, [claim.entry], idle=idle, justid=True)

    async def _claim_expired(self, model: str) -> Claim | None:
        lease = round(1e3 * LEASE_SECONDS)
        queue = queue_key(model)
        # XAUTOCLAIM does this in one command, but looks at ten entries only, and all ten may have been renewed.
        idle = await self._redis.xpending_range(queue, GROUP, min="-", max="+", count=1, idle=lease)
        entries = [entry["message_id"] for entry in idle]
        return _claim(model, await self._redis.xclaim(queue, GROUP, CONSUMER, lease, entries)) if entries else None

    async def _claim_next(self, model: str) -> Claim | None:
        block = round(1e3 * BLOCK_SECONDS)
        found = await self._redis.xreadgroup(GROUP, CONSUMER, {queue_key(model): ">"}, count=1, block=block)
        return _claim(model, found[0][1]) if found else None


def _claim(model: str, found: Any) -> Claim | None:
    for entry, fields in found or ():
        if fields:
            return Claim(model, fields["job"], entry)
    return None
