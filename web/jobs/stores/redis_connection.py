"""The connection to Redis or Valkey, what becomes of its outages, and whether what is stored there is known here."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import OutOfMemoryError

from contract import ProblemError, problems
from web.jobs.store import RETRY_AFTER_SECONDS, StoreFullError
from web.jobs.stores.redis_keys import SCHEMA, SCHEMA_KEY, SECRET_KEY
from web.telemetry.store_commands import note_command
from wire.shared_store import client as shared_store

log = logging.getLogger(__name__)

BLOCK_SECONDS = 5.0
"""Longest that a command waits in Redis for the next job."""

CONNECT_SECONDS = 5.0
"""Longest wait for a connection."""

ANSWER_SECONDS = BLOCK_SECONDS + CONNECT_SECONDS
"""Longest wait for an answer, after which the connection is given up."""

MOST_BACKOFF_SECONDS = 1.0
"""Longest wait between two attempts to reach Redis."""


MOST_CONNECTIONS = 64
"""Most connections of this process. Commands that find none free wait for one: each claim that waits for a job holds
one, and the subscription."""

CLOCK_SECONDS = 30.0
"""How long one answer of Redis about its time is gone by."""

CHECK_SECONDS = 3.0
"""Longest wait for an answer that one can do without: at the start, and of a clock that was read before."""


def connect(url: str, patience_seconds: float) -> Any:
    """A client for `outages`, which has the patience."""
    retries = max(1, round(patience_seconds / MOST_BACKOFF_SECONDS))
    client = shared_store.connect(
        url,
        most_connections=MOST_CONNECTIONS,
        wait_seconds=patience_seconds,
        retry=Retry(ExponentialBackoff(cap=MOST_BACKOFF_SECONDS, base=0.05), retries),
        decode_responses=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        health_check_interval=30,
        observe=note_command,
    )
    client.patience_seconds = patience_seconds
    client.answer_seconds = min(patience_seconds, ANSWER_SECONDS) / 2  # the patience may have begun earlier
    return client


@asynccontextmanager
async def outages(redis: Any, block_seconds: float | None = 0.0) -> AsyncGenerator[None]:
    """Turns errors of Redis into an UNAVAILABLE problem once the client has given up, those of a read-only one too; and
    those of a full one into OVERLOADED.

    All attempts together get the patience of the client: redis-py bounds each of them, and a server that is connected
    and silent makes each of them last. Commands that wait in Redis have `block_seconds` more; None is for those that
    wait for ever.
    """
    try:
        async with asyncio.timeout(None if block_seconds is None else redis.patience_seconds + block_seconds):
            with shared_store.kept_cancellations():
                yield
    except shared_store.OUTAGES as error:
        log.warning("the store: %s", shared_store.reason(error))
        if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error):  # the latter by a script
            raise StoreFullError from error
        detail = "The store of the generations cannot be reached."
        raise ProblemError(problems.UNAVAILABLE, detail, retry_after=RETRY_AFTER_SECONDS) from error


class RedisClock:
    """The time of Redis. It is asked for now and then; between, this machine's clock measures what has passed, in which
    two machines hardly differ."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._asked: float | None = None  # by the monotonic clock
        self._ahead = 0.0  # of the monotonic clock

    async def now(self) -> float:
        """Seconds since 1970. Raises UNAVAILABLE in an outage, if Redis was never asked before."""
        before = time.monotonic()
        if self._asked is None or before - self._asked >= CLOCK_SECONDS:
            try:
                seconds_left = None if self._asked is None else CHECK_SECONDS
                async with outages(self._redis), asyncio.timeout(seconds_left):
                    seconds, microseconds = await self._redis.time()
                self._ahead = seconds + microseconds / 1e6 - (before + time.monotonic()) / 2
            except ProblemError:
                if self._asked is None:
                    raise
            self._asked = time.monotonic()
        return time.monotonic() + self._ahead


class SharedSecret:
    """Asked for each time, as a Redis may lose what it has: who finds none stores the one that it knows, or has drawn,
    and of several the first one counts."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._known = secrets.token_urlsafe(32)

    async def get(self) -> str:
        async with outages(self._redis):
            stored = await self._redis.get(SECRET_KEY)
            if stored is None and not await self._redis.set(SECRET_KEY, self._known, nx=True):
                stored = await self._redis.get(SECRET_KEY)
        self._known = stored or self._known
        return self._known


class UnknownSchema(Exception):
    """The jobs were stored by a version of web that this one does not know."""


async def check_schema(url: str) -> None:
    """Raises UnknownSchema."""
    redis = connect(url, CHECK_SECONDS)
    try:
        stored = None
        with suppress(ProblemError):
            async with outages(redis):
                stored = await redis.get(SCHEMA_KEY)
    finally:
        await redis.aclose()
    if stored is not None and not (stored.isdecimal() and int(stored) <= SCHEMA):
        raise UnknownSchema(
            f"store_url: what is stored there has the version {stored[:32]!r} ({SCHEMA_KEY}), and this version of web "
            f"knows {SCHEMA} at most; run the version that stored it, or name another store"
        )
