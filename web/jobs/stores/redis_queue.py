"""Each model's queue in Redis: a stream with a consumer group, and beside it the fair order of what waits.

An entry that somebody works on is a pending one of the group, of the consumer `replica`. Its lease is the time since it
was delivered: renewing delivers it once more, and whoever finds an entry idle for longer than the lease claims it. An
entry that waits is pending, too, of the consumer `waiting`: with its lease over, so that replicas which know of no
order (up to commit 31fe71b) claim it, the oldest first, while they run beside others or take their place.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

from web.jobs.record import Claim, JobRecord, QueuePlace
from web.jobs.store import PLACE_SECONDS
from web.jobs.stores.redis_connection import BLOCK_SECONDS, outages
from web.jobs.stores.redis_keys import CONSUMER, GROUP, RedisKeys
from web.jobs.stores.redis_queue_scripts import REMOVE, RedisQueueScripts

LEASE_SECONDS = 15.0
"""A claim that was not renewed for so long is anybody's."""


class RedisQueue:
    """All methods raise an UNAVAILABLE problem in an outage; those with a `pipe` only add commands to it."""

    def __init__(self, redis: Any, keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = RedisQueueScripts(redis)
        # The oldest first.
        self._places: OrderedDict[str, tuple[float, asyncio.Task[QueuePlace | None]]] = OrderedDict()

    def enqueue(self, pipe: Any, record: JobRecord) -> None:
        pipe.xadd(self._keys.queue(record.model), {"job": record.id, "caller": record.caller, "cost": str(record.cost)})

    def dequeue(self, pipe: Any, model: str, entry: str) -> None:
        keys = self._keys.fair(model)
        pipe.eval(REMOVE, len(keys), *keys, entry)

    async def place(self, record: JobRecord) -> QueuePlace | None:
        """As JobStore.place: all who ask for one job within PLACE_SECONDS get one answer of Redis."""
        now = time.monotonic()
        while self._places and now - next(iter(self._places.values()))[0] >= PLACE_SECONDS:
            self._places.popitem(last=False)
        if record.id not in self._places:
            asking = asyncio.create_task(self._place(record))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # all may have left by then
            self._places[record.id] = now, asking
        return await asyncio.shield(self._places[record.id][1])

    async def claim(self, model: str, but_not: Collection[str] = ()) -> Claim | None:
        keys, arguments = self._keys.fair(model), [_lease(), *but_not]
        async with outages(self._redis, BLOCK_SECONDS):
            entry, *job = await self._scripts.claim(keys, arguments)
            if not job:
                # A lease that runs out is found when this ends: not at the same time by all replicas.
                block = round(BLOCK_SECONDS * (750 + secrets.randbelow(250)))
                await self._redis.xread({self._keys.queue(model): entry}, count=1, block=block)
                entry, *job = await self._scripts.claim(keys, arguments)
        return Claim(model, job[0], entry, caller=job[1]) if job else None

    async def renew(self, claims: Sequence[Claim]) -> None:
        async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
            for claim in claims:
                pipe.xclaim(self._keys.queue(claim.model), GROUP, CONSUMER, 0, [claim.entry], justid=True)
            await pipe.execute(raise_on_error=False)

    async def acknowledge(self, claim: Claim) -> None:
        # A full Redis takes no MULTI.
        async with outages(self._redis), self._redis.pipeline(transaction=False) as pipe:
            self.dequeue(pipe, claim.model, claim.entry)
            await pipe.execute()

    async def release(self, claim: Claim) -> None:
        async with outages(self._redis):
            await self._redis.xclaim(
                self._keys.queue(claim.model), GROUP, CONSUMER, 0, [claim.entry], idle=_lease(), justid=True
            )

    async def _place(self, record: JobRecord) -> QueuePlace | None:
        async with outages(self._redis):
            entry = await self._redis.hget(self._keys.job(record.id), "entry")
            if entry is None:
                return None
            found = await self._scripts.place(self._keys.fair(record.model), [_lease(), entry, record.caller])
        return QueuePlace(found[0], found[1], is_claimed=len(found) > 2) if found else None


def _lease() -> int:
    """In milliseconds."""
    return round(1e3 * LEASE_SECONDS)
