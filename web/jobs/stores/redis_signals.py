"""Messages of Redis: they wake up those who wait for a change of a job, and carry what replicas broadcast."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from web.jobs.background_loops import IDLE_SECONDS, BackgroundLoop, BackgroundLoops
from web.jobs.stores.redis_connection import outages
from web.jobs.stores.redis_keys import BROADCAST, ENDED, RedisKeys


class RedisSignals:
    """One subscription for everybody in this process: to what is broadcast, which `receive` gets, to the ends of all
    jobs, and to the changes of those jobs that somebody waits for."""

    def __init__(
        self, redis: Any, keys: RedisKeys, receive: Callable[[str], None], background: BackgroundLoops
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._background = background
        self._receive = receive
        self._changes: defaultdict[str, set[asyncio.Event]] = defaultdict(set)  # by channel
        self._ends: defaultdict[str, set[asyncio.Event]] = defaultdict(set)  # by job
        self._wanted = asyncio.Event()
        """Set when `_changes` has other channels than before."""
        self._listening: BackgroundLoop | None = None

    def open(self) -> None:
        self._listening = self._background.start("the subscription to changes of jobs", self._listen)

    async def close(self) -> None:
        if self._listening is not None:
            await self._background.close(self._listening)

    @contextmanager
    def changes(self, job: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job has changed, or may have."""
        channel = self._keys.changes(job)
        with self._end_of(job) as signal:
            self._changes[channel].add(signal)
            self._wanted.set()
            try:
                yield signal
            finally:
                self._changes[channel].discard(signal)
                if not self._changes[channel]:
                    del self._changes[channel]
                    self._wanted.set()

    @contextmanager
    def end(self, job: str) -> Iterator[asyncio.Event]:
        """An event that is set when the job has ended."""
        with self._end_of(job) as signal:
            yield signal

    @contextmanager
    def _end_of(self, job: str) -> Iterator[asyncio.Event]:
        signal = asyncio.Event()
        self._ends[job].add(signal)
        try:
            yield signal
        finally:
            self._ends[job].discard(signal)
            if not self._ends[job]:
                del self._ends[job]

    async def _listen(self) -> None:
        """For as long as one connection lasts."""
        async with outages(self._redis, block_seconds=None):
            async with outages(self._redis):
                await self._redis.initialize()  # a cluster's client does not know the nodes before
            async with self._redis.pubsub() as messages:
                async with outages(self._redis):
                    await messages.subscribe(ENDED, BROADCAST)
                await self._pass_on(messages)

    async def _pass_on(self, messages: Any) -> None:
        """Whatever is subscribed to and read goes through this one task: redis-py's subscriptions are not safe for
        several."""
        assert self._listening is not None
        subscribed: set[str] = set()
        while True:
            self._wanted.clear()
            async with outages(self._redis):
                if new := self._changes.keys() - subscribed:
                    await messages.subscribe(*new)
                if old := subscribed - self._changes.keys():
                    await messages.unsubscribe(*old)
            subscribed = set(self._changes)
            reading = asyncio.ensure_future(messages.get_message(timeout=None))
            wanted = asyncio.ensure_future(self._wanted.wait())
            try:
                while not (reading.done() or wanted.done()):
                    await asyncio.wait({reading, wanted}, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    self._listening.went_round()
            finally:
                for task in (reading, wanted):
                    task.cancel()
                await asyncio.wait({reading, wanted})
            if not reading.cancelled() and (message := reading.result()) is not None:
                self._receive_message(message)

    def _receive_message(self, message: dict[str, Any]) -> None:
        channel = message["channel"]
        if message["type"] == "subscribe":  # for the first time, or again: something may have been missed before
            signals = self._changes.get(channel, ())
        elif message["type"] != "message":
            return
        elif channel == BROADCAST:
            self._receive(message["data"])
            return
        else:
            signals = self._ends.get(message["data"], ()) if channel == ENDED else self._changes.get(channel, ())
        for signal in signals:
            signal.set()


async def signalled(signal: asyncio.Event, seconds: float) -> None:
    """Wait for the signal, or about so many seconds: not all who wait shall ask at once."""
    jitter = 0.75 + secrets.randbelow(500) / 1_000
    try:
        async with asyncio.timeout(seconds * jitter):
            await signal.wait()
    except TimeoutError:
        pass
