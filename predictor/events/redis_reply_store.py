"""The ReplyStore of replicas that share a Redis or Valkey."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import LockError

from contract import problems
from contract.callers import EVENTS_CALLER
from contract.cloudevents import CloudEvent
from contract.problems import ProblemError
from predictor import metrics
from predictor.events.reply_store import PendingReply
from predictor.limits import REPLY_SECONDS
from wire.deadline import REQUEST_SECONDS
from wire.shared_store.circuit_breaker import CircuitBreaker
from wire.shared_store.client import connect

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""How long a lease lasts without being renewed: so long the requests of a killed replica wait for another one."""

POLL_SECONDS = 0.1
"""Between two looks whether another replica has released its lease."""

MOST_CONNECTIONS = 64
"""Most connections of this process. Commands that find none free wait for one."""

RETRIES = 3
MAX_BACKOFF_SECONDS = 0.2
COMMAND_SECONDS = 1.0
"""Longest wait for Redis to connect or to answer, in each try."""

OUTAGE_SECONDS = 5.0
"""How long Redis is not asked again after it could not be reached, because every request would wait for it."""


@dataclass(frozen=True, kw_only=True)
class StoreTimes:
    """How long a reply is stored, a lease is waited for, a lease lasts, and Redis is left alone after an error."""

    reply_seconds: float = REPLY_SECONDS
    request_seconds: float = REQUEST_SECONDS
    lease_seconds: float = LEASE_SECONDS
    outage_seconds: float = OUTAGE_SECONDS


class RedisReplyStore:
    """`service` separates the predictors that share the Redis at `url`. Raises ValueError for a wrong `url`."""

    def __init__(self, url: str, service: str, times: StoreTimes | None = None) -> None:
        self._service = service
        self._times = times or StoreTimes()
        self._expiry_ms = round(1e3 * self._times.reply_seconds)
        self._store = CircuitBreaker(
            self._times.outage_seconds,
            log,
            lost="the store cannot be reached, each replica goes by its own memory",
            back="the store can be reached again",
        )
        self._redis = connect(
            url,
            most_connections=MOST_CONNECTIONS,
            wait_seconds=COMMAND_SECONDS,
            retry=Retry(ExponentialBackoff(cap=MAX_BACKOFF_SECONDS, base=0.05), RETRIES),
            socket_connect_timeout=COMMAND_SECONDS,
            socket_timeout=COMMAND_SECONDS,
        )

    @asynccontextmanager
    async def lease(self, pending: PendingReply) -> AsyncIterator[CloudEvent | None]:
        """See ReplyStore."""
        name, seconds = self._name("run", pending.key), self._times.lease_seconds
        lock = self._redis.lock(name, seconds, POLL_SECONDS, thread_local=False)
        free = await self._store.ask(lambda: lock.acquire(blocking=False))
        if free is False:
            metrics.REDELIVERIES.labels("running").inc()
            limit = self._times.request_seconds
            if await self._store.ask(lambda: lock.acquire(blocking_timeout=limit)) is False:
                detail = f"Another replica has not finished this request within {limit:g} s."
                raise ProblemError(problems.UPSTREAM_TIMEOUT, detail)
        renewing = asyncio.create_task(self._renew(lock, pending))
        try:
            reply, cancelled = await self._look_up(pending)
            if reply is not None and free:
                metrics.REDELIVERIES.labels("done").inc()
            if cancelled:
                pending.cancel()
            yield reply
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
            await self._store.ask(lambda: _release(lock))

    async def put(self, key: tuple[str, ...], reply: CloudEvent) -> None:
        """See ReplyStore."""
        document = reply.model_dump_json()
        await self._store.ask(lambda: self._redis.set(self._name("reply", key), document, px=self._expiry_ms))

    async def cancel(self, caller: str, subject: str) -> None:
        """See ReplyStore."""
        name = self._name("cancelled", _subject(caller, subject))
        await self._store.ask(lambda: self._redis.set(name, b"", px=self._expiry_ms))

    async def close(self) -> None:
        """See ReplyStore."""
        await self._redis.aclose()

    async def _look_up(self, pending: PendingReply) -> tuple[CloudEvent | None, bool]:
        """The stored reply, and whether the request was cancelled."""
        async with self._redis.pipeline(transaction=False) as pipe:  # MGET takes no keys of two nodes of a cluster
            pipe.get(self._name("reply", pending.key))
            pipe.exists(self._name_of_cancellation(pending))
            reply, cancelled = await self._store.ask(pipe.execute) or (None, 0)
        return CloudEvent.of_any_version(reply) if reply else None, bool(cancelled)

    async def _renew(self, lock: Lock, pending: PendingReply) -> None:
        """Renew the lease until this is cancelled, and pass on a cancellation of the request."""
        while True:
            await asyncio.sleep(self._times.lease_seconds / 3)
            try:
                await self._store.ask(lock.reacquire)
            except LockError:  # the lease has expired while Redis could not be reached, or Redis was restarted
                await self._store.ask(lambda: lock.acquire(blocking=False))
            if await self._store.ask(lambda: self._redis.exists(self._name_of_cancellation(pending))):
                pending.cancel()

    def _name_of_cancellation(self, pending: PendingReply) -> str:
        return self._name("cancelled", _subject(pending.caller, pending.subject))

    def _name(self, what: str, key: tuple[str, ...] | str) -> str:
        digest = hashlib.sha256(json.dumps([self._service, key]).encode()).hexdigest()
        return f"shangcai:{what}:{digest}"


def _subject(caller: str, subject: str) -> tuple[str, ...] | str:
    """Of events that name no caller as before there were callers: older replicas share the store."""
    return subject if caller == EVENTS_CALLER else (caller, subject)


async def _release(lock: Lock) -> None:
    try:
        await lock.release()
    except LockError:  # it has expired
        log.debug("another replica holds %s by now", lock.name)
