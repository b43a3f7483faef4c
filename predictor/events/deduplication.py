"""What has been asked for before. Brokers deliver at least once, and again when an answer is late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from contract.cloudevents import CloudEvent
from predictor import metrics
from predictor.limits import REPLIES, REPLY_BYTES, REPLY_SECONDS

if TYPE_CHECKING:  # only few deployments need it
    from predictor.events.redis_reply_store import RedisReplyStore

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Run(Protocol):
    """What is done for one request. `key` tells it from others; `subject` is what it is cancelled by."""

    key: tuple[str, str]
    subject: str

    async def reply(self) -> CloudEvent:
        """The reply, which is kept; a failure that may pass is raised instead, and is not."""

    def cancel(self) -> None:
        """Have it reply soon that it was cancelled; at once where it has not begun."""


class Deduplicator:
    """Does for each request once what is to be done, as long as it remembers the reply.

    With `replicas` it does so across all of them; where they cannot be reached, each goes by its own memory.
    """

    def __init__(
        self,
        replicas: RedisReplyStore | None = None,
        *,
        replies: int = REPLIES,
        reply_bytes: int = REPLY_BYTES,
        reply_seconds: float = REPLY_SECONDS,
    ) -> None:
        self._replicas = replicas
        self._replies: BoundedCache[tuple[str, str], CloudEvent] = BoundedCache(replies, reply_bytes, reply_seconds)
        self._cancelled: BoundedCache[str, bool] = BoundedCache(replies, reply_bytes, reply_seconds)
        self._running: dict[tuple[str, str], tuple[Run, asyncio.Task[CloudEvent]]] = {}

    @property
    def busy(self) -> bool:
        """Whether anything runs; nobody may be waiting for it any more."""
        return bool(self._running)

    async def reply(self, run: Run) -> CloudEvent:
        """The reply to a request that is delivered now, perhaps not for the first time.

        The run is not given up when whoever waits here is.
        """
        reply = self._replies.get(run.key)
        if reply is not None:
            metrics.REDELIVERIES.labels("done").inc()
            return reply
        if run.key in self._running:
            metrics.REDELIVERIES.labels("running").inc()
        else:
            task = asyncio.create_task(self._run(run))
            self._running[run.key] = run, task
            task.add_done_callback(lambda _: self._forget(run))
        _, task = self._running[run.key]
        return await asyncio.shield(task)

    async def cancel(self, subject: str) -> None:
        """End what runs under this subject, here or in another replica, and what is going to be asked for under it: a
        request may be overtaken by the word that it is cancelled."""
        self._cancelled.put(subject, True, len(subject))
        for run, _ in self._running.values():
            if run.subject == subject:
                run.cancel()
        if self._replicas is not None:
            await self._replicas.cancel(subject)

    async def close(self) -> None:
        """Give up what still runs."""
        tasks = {task for _, task in self._running.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._replicas is not None:
            await self._replicas.close()

    async def _run(self, run: Run) -> CloudEvent:
        if self._cancelled.get(run.subject):
            run.cancel()
        if self._replicas is None:
            reply = await run.reply()
        else:
            async with self._replicas.turn(run) as known:
                reply = known or await run.reply()
                if known is None:
                    await self._replicas.keep(run.key, reply)
        self._replies.put(run.key, reply, len(reply.model_dump_json()))
        return reply

    def _forget(self, run: Run) -> None:
        _, task = self._running.pop(run.key)
        if not task.cancelled():
            task.exception()  # is told to those who still wait; that there may be none is no mistake


class BoundedCache(Generic[Key, Value]):
    """The newest values, within a number, a size and a time. The oldest are forgotten first."""

    def __init__(self, number: int, size: int, seconds: float) -> None:
        self._number = number
        self._size = size
        self._seconds = seconds
        self._kept: dict[Key, tuple[Value, int, float]] = {}
        self._held = 0

    def get(self, key: Key) -> Value | None:
        self._tidy()
        value, *_ = self._kept.get(key, (None,))
        return value

    def put(self, key: Key, value: Value, size: int) -> None:
        self._drop(key)
        self._kept[key] = value, size, time.monotonic() + self._seconds
        self._held += size
        self._tidy()

    def _tidy(self) -> None:
        now = time.monotonic()
        while self._kept:
            oldest, (_, _, ends) = next(iter(self._kept.items()))
            if len(self._kept) <= self._number and self._held <= self._size and now < ends:
                return
            self._drop(oldest)

    def _drop(self, key: Key) -> None:
        _, size, _ = self._kept.pop(key, (None, 0, 0.0))
        self._held -= size
