"""Messages of Redis: they wake up those who wait for a change of a job, and carry what replicas broadcast."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError

from web.jobs.stores.redis_connection import MOST_BACKOFF_SECONDS
from web.jobs.stores.redis_keys import BROADCAST, CHANGED, ENDED

log = logging.getLogger(__name__)


class RedisSignals:
    """One subscription for everybody in this process. `receive` gets what is broadcast."""

    def __init__(self, redis: Any, receive: Callable[[str], None]) -> None:
        self._redis = redis
        self._receive = receive
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self._listening: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening is not None:
            while not self._listening.done():  # a cancellation may be lost: see outages
                self._listening.cancel()
                await asyncio.wait({self._listening}, timeout=0.1)

    @contextmanager
    def subscribed(self, channel: str, job: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever a message about this job comes on this channel."""
        signal = asyncio.Event()
        waiting = self._waiting[channel, job]
        waiting.add(signal)
        try:
            yield signal
        finally:
            waiting.discard(signal)
            if not waiting:
                self._waiting.pop((channel, job), None)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as messages:
                    await messages.subscribe(CHANGED, ENDED, BROADCAST)
                    async for message in messages.listen():
                        if message["channel"] == BROADCAST:
                            self._receive(message["data"])
                        for signal in self._waiting.get((message["channel"], message["data"]), ()):
                            signal.set()
            except RedisError as error:
                log.warning("changes are not heard of: %s", error)
                await asyncio.sleep(MOST_BACKOFF_SECONDS)


async def signalled(signal: asyncio.Event, seconds: float) -> None:
    """Wait for the signal, or so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await signal.wait()
    except TimeoutError:
        pass
