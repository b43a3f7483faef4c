"""The connection to Redis or Valkey, what becomes of its outages, and whether what is stored there is known here."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import OutOfMemoryError

from contract import ProblemError, problems
from web.jobs.store import StoreFullError
from web.jobs.stores.redis_keys import SCHEMA, SCHEMA_KEY, SECRET_KEY
from wire.shared_store import client as shared_store

log = logging.getLogger(__name__)

BLOCK_SECONDS = 5.0
"""Longest that a command waits in Redis for the next job."""

CONNECT_SECONDS = 5.0
"""Longest wait for a connection; an answer may take so long beyond BLOCK_SECONDS."""

MOST_BACKOFF_SECONDS = 1.0
"""Longest wait between two attempts to reach Redis."""


MOST_CONNECTIONS = 64
"""Most connections of this process. Commands that find none free wait for one: each claim that waits for a job holds
one, and the subscription."""

CLOCK_SECONDS = 30.0
"""How long one answer of Redis about its time is gone by."""

CHECK_SECONDS = 3.0
"""Longest that the start waits for it. Where Redis cannot be reached, web starts all the same."""


def connect(url: str, patience_seconds: float) -> Any:
    """A client whose commands are tried again for about `patience_seconds`."""
    retries = max(1, round(patience_seconds / MOST_BACKOFF_SECONDS))
    return shared_store.connect(
        url,
        most_connections=MOST_CONNECTIONS,
        wait_seconds=patience_seconds,
        retry=Retry(ExponentialBackoff(cap=MOST_BACKOFF_SECONDS, base=0.05), retries),
        decode_responses=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=BLOCK_SECONDS + CONNECT_SECONDS,
        health_check_interval=30,
    )


@contextmanager
def outages() -> Iterator[None]:
    """Turns errors of Redis into an UNAVAILABLE problem once the client has given up, those of a read-only one too; and
    those of a full one into OVERLOADED."""
    try:
        with shared_store.kept_cancellations():
            yield
    except shared_store.OUTAGES as error:
        log.warning("the store: %s", shared_store.reason(error))
        if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error):  # the latter by a script
            raise StoreFullError from error
        problem = ProblemError(problems.UNAVAILABLE, "The store of the generations cannot be reached.", retry_after=5)
        raise problem from error


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
                with outages():
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
        with outages():
            stored = await self._redis.get(SECRET_KEY)
            if stored is None and not await self._redis.set(SECRET_KEY, self._known, nx=True):
                stored = await self._redis.get(SECRET_KEY)
        self._known = stored or self._known
        return self._known


class UnknownSchema(Exception):
    """The jobs were stored by a version of web that this one does not know."""


async def check_schema(url: str) -> None:
    """Raises UnknownSchema."""
    redis = connect(url, patience_seconds=1)
    try:
        stored = None
        with suppress(ProblemError, TimeoutError), outages():
            stored = await asyncio.wait_for(redis.get(SCHEMA_KEY), CHECK_SECONDS)
    finally:
        await redis.aclose()
    if stored is not None and not (stored.isdecimal() and int(stored) <= SCHEMA):
        raise UnknownSchema(
            f"store_url: what is stored there has the version {stored[:32]!r} ({SCHEMA_KEY}), and this version of web "
            f"knows {SCHEMA} at most; run the version that stored it, or name another store"
        )
