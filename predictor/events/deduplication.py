"""Each request is generated once. Brokers deliver at least once, and again when an answer is late."""

from __future__ import annotations

import asyncio

from contract.cloudevents import CloudEvent
from predictor import metrics
from predictor.events.bounded_cache import BoundedCache
from predictor.events.reply_store import PendingReply, ReplyStore
from predictor.limits import REPLIES, REPLY_BYTES, REPLY_SECONDS
from wire.telemetry.tracing import is_sampled, link_to, passed_on


class Deduplicator:
    """Generates the reply to a request once and answers redeliveries with the same reply, for `reply_seconds`.

    With a `store` this holds across all replicas that share it. While the store cannot be reached, each replica uses
    its own memory: at most `replies` replies of `reply_bytes` together.
    """

    def __init__(
        self,
        store: ReplyStore | None = None,
        *,
        replies: int = REPLIES,
        reply_bytes: int = REPLY_BYTES,
        reply_seconds: float = REPLY_SECONDS,
    ) -> None:
        self._store = store
        self._replies: BoundedCache[tuple[str, ...], CloudEvent] = BoundedCache(replies, reply_bytes, reply_seconds)
        self._cancelled: BoundedCache[tuple[str, str], bool] = BoundedCache(replies, reply_bytes, reply_seconds)
        self._traces: BoundedCache[tuple[str, ...], dict[str, str]] = BoundedCache(replies, reply_bytes, reply_seconds)
        """Of the first delivery of each, to which the span of a redelivery links."""
        self._running: dict[tuple[str, ...], tuple[PendingReply, asyncio.Task[CloudEvent]]] = {}

    @property
    def busy(self) -> bool:
        """Whether a generation is running; its delivery may have been given up."""
        return bool(self._running)

    async def reply(self, pending: PendingReply) -> CloudEvent:
        """The reply to a request, which may be a redelivery. Raises the ProblemError of a transient failure.

        Cancelling this call does not cancel the generation: the redelivery that follows gets its reply.
        """
        reply = self._replies.get(pending.key)
        if reply is not None:
            metrics.REDELIVERIES.labels("done").inc()
            link_to(self._traces.get(pending.key) or {})
            return reply
        if pending.key in self._running:
            metrics.REDELIVERIES.labels("running").inc()
            link_to(self._traces.get(pending.key) or {})
        else:
            if is_sampled():
                self._traces.put(pending.key, passed_on({}), 0)
            task = asyncio.create_task(self._generate(pending))
            self._running[pending.key] = pending, task
            task.add_done_callback(lambda _: self._forget(pending))
        _, task = self._running[pending.key]
        return await asyncio.shield(task)

    async def cancel(self, caller: str, subject: str) -> None:
        """Cancel what runs for this caller under this subject, here or in another replica, and what it requests under
        it later: the event that cancels a request may overtake the request."""
        self._cancelled.put((caller, subject), True, len(caller) + len(subject))
        for pending, _ in self._running.values():
            if (pending.caller, pending.subject) == (caller, subject):
                pending.cancel()
        if self._store is not None:
            await self._store.cancel(caller, subject)

    async def close(self) -> None:
        """Cancel what still runs, and close the store."""
        tasks = {task for _, task in self._running.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._store is not None:
            await self._store.close()

    async def _generate(self, pending: PendingReply) -> CloudEvent:
        if self._cancelled.get((pending.caller, pending.subject)):
            pending.cancel()
        if self._store is None:
            reply = await pending.reply()
        else:
            async with self._store.lease(pending) as stored:
                reply = stored or await pending.reply()
                if stored is None:
                    await self._store.put(pending.key, reply)
        self._replies.put(pending.key, reply, len(reply.model_dump_json()))
        return reply

    def _forget(self, pending: PendingReply) -> None:
        _, task = self._running.pop(pending.key)
        if not task.cancelled():
            task.exception()  # those who wait raise it; asyncio would log it as never retrieved where nobody waits
