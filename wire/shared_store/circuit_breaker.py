"""Asking a store that one can do without for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import LockError

from wire.shared_store.client import OUTAGES, kept_cancellations, reason

Answer = TypeVar("Answer")


class CircuitBreaker:
    """After an outage the store is left alone for `seconds`, because everybody would wait for it. The log is told once
    that it is `lost`, and once that it is `back`."""

    def __init__(self, seconds: float, log: logging.Logger, *, lost: str, back: str) -> None:
        self._seconds = seconds
        self._log = log
        self._lost = lost
        self._back = back
        self._unreachable = False
        self._retry_at = 0.0

    async def ask(self, command: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """What the store answers; None when it cannot be reached, and for `seconds` after. Raises LockError, which
        tells of a lock and of no outage."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            with kept_cancellations():
                answer = await command()
        except LockError:
            raise
        except OUTAGES as error:
            if not self._unreachable:
                self._log.warning("%s: %s", self._lost, reason(error))
            self._unreachable = True
            self._retry_at = time.monotonic() + self._seconds
            return None
        if self._unreachable:
            self._log.info(self._back)
        self._unreachable = False
        return answer
