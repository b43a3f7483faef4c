"""What the replicas of one predictor tell each other, through Redis or Valkey: who is at work on which request, what
was replied, and what was cancelled."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import LockError, RedisError

from contract import problems
from contract.cloudevents import CloudEvent
from contract.problems import ProblemError
from predictor import metrics
from predictor.limits import REPLY_SECONDS
from wire.deadline import REQUEST_SECONDS

if TYPE_CHECKING:
    from predictor.events.deduplication import Run

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""How long a replica that has died keeps the others from the work that it had in hand."""

POLL_SECONDS = 0.1
"""How often it is looked whether another replica is done."""

RETRIES = 3
LONGEST_BACKOFF_SECONDS = 0.2
ANSWER_SECONDS = 1.0
"""Longest wait for Redis, each time it is tried."""

AWAY_SECONDS = 5.0
"""How long a Redis that could not be reached is left alone: every request would wait for it again."""

Answer = TypeVar("Answer")


class RedisReplyStore:
    """`service` tells apart the predictors that share a Redis. Keeps for `reply_seconds`; a turn is waited for as long
    as a request may take."""

    def __init__(
        self,
        url: str,
        service: str,
        *,
        reply_seconds: float = REPLY_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        away_seconds: float = AWAY_SECONDS,
    ) -> None:
        self._service = service
        self._keep_ms = round(1e3 * reply_seconds)
        self._request_seconds = request_seconds
        self._lease_seconds = lease_seconds
        self._away_seconds = away_seconds
        self._away = False
        self._asked_again_at = 0.0
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(ExponentialBackoff(cap=LONGEST_BACKOFF_SECONDS, base=0.05), RETRIES),
            socket_connect_timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
        )

    @asynccontextmanager
    async def turn(self, run: Run) -> AsyncIterator[CloudEvent | None]:
        """Wait until no other replica is at work on this request; what one has replied to it, if any."""
        lock = self._redis.lock(self._name("run", run.key), self._lease_seconds, POLL_SECONDS, thread_local=False)
        free = await self._ask(lambda: lock.acquire(blocking=False))
        if free is False:
            metrics.REDELIVERIES.labels("running").inc()
            if await self._ask(lambda: lock.acquire(blocking_timeout=self._request_seconds)) is False:
                detail = f"Another replica has not finished this request within {self._request_seconds:g} s."
                raise ProblemError(problems.UPSTREAM_TIMEOUT, detail)
        keeping = asyncio.create_task(self._keep_up(lock, run))
        try:
            reply, cancelled = await self._look_up(run)
            if reply is not None and free:
                metrics.REDELIVERIES.labels("done").inc()
            if cancelled:
                run.cancel()
            yield reply
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
            await self._ask(lambda: _release(lock))

    async def keep(self, key: tuple[str, str], reply: CloudEvent) -> None:
        """Let the others know a reply."""
        document = reply.model_dump_json()
        await self._ask(lambda: self._redis.set(self._name("reply", key), document, px=self._keep_ms))

    async def cancel(self, subject: str) -> None:
        """Let the others know that what has this subject is cancelled."""
        await self._ask(lambda: self._redis.set(self._name("cancelled", subject), b"", px=self._keep_ms))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _look_up(self, run: Run) -> tuple[CloudEvent | None, bool]:
        names = [self._name("reply", run.key), self._name("cancelled", run.subject)]
        reply, cancelled = await self._ask(lambda: self._redis.mget(names)) or (None, None)
        return CloudEvent.model_validate_json(reply) if reply else None, cancelled is not None

    async def _keep_up(self, lock: Lock, run: Run) -> None:
        """Keep the lease for as long as the work takes, and notice when it is cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                await self._ask(lock.reacquire)
            except LockError:  # a Redis that was away, or has been started again, knows nothing of it
                await self._ask(lambda: lock.acquire(blocking=False))
            if await self._ask(lambda: self._redis.exists(self._name("cancelled", run.subject))):
                run.cancel()

    async def _ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """What Redis answers; None when it cannot be reached, and for a while after."""
        if time.monotonic() < self._asked_again_at:
            return None
        try:
            answer = await question()
        except LockError:
            raise
        except (RedisError, OSError) as error:
            if not self._away:
                log.warning("the store cannot be reached, each replica goes by its own memory: %s", error)
            self._away = True
            self._asked_again_at = time.monotonic() + self._away_seconds
            return None
        if self._away:
            log.info("the store can be reached again")
        self._away = False
        return answer

    def _name(self, what: str, key: tuple[str, str] | str) -> str:
        digest = hashlib.sha256(json.dumps([self._service, key]).encode()).hexdigest()
        return f"shangcai:{what}:{digest}"


async def _release(lock: Lock) -> None:
    try:
        await lock.release()
    except LockError:
        log.debug("somebody else has %s by now", lock.name)
