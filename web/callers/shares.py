"""Lets each caller take its share and no more."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from contract import ProblemError, problems
from web.callers.counters import LEASE_SECONDS, ShareCounters
from web.callers.share import CONCURRENCY, Share, Usage, rate_limit_fields

log = logging.getLogger(__name__)

_WEIGHT = 0.2

_TOO_MUCH = {
    "concurrency": "So many requests of this caller are under way as may be at once.",
    "requests": "This caller has sent as many requests as it may for now.",
    "cost": "This caller has asked for as many tokens and steps as it may for now.",
}


class QuotaExceededError(ProblemError):
    """With the RateLimit fields beside Retry-After."""

    def __init__(self, share: Share, usage: Usage, retry_after: float) -> None:
        assert usage.refused is not None
        names: dict[str, Any] = {"violated-policies": [usage.refused]}  # the draft's member
        super().__init__(problems.QUOTA_EXCEEDED, _TOO_MUCH[usage.refused], retry_after=retry_after, **names)
        self._fields = rate_limit_fields(share, usage)

    @property
    def headers(self) -> dict[str, str]:
        return super().headers | self._fields


class Shares:
    """`share_of` says what a caller may take."""

    def __init__(self, share_of: Callable[[str], Share], counters: ShareCounters) -> None:
        self._share_of = share_of
        self._counters = counters
        self._request_s = 1.0  # smoothed
        self._giving_back: set[asyncio.Task[None]] = set()

    def limits(self, caller: str) -> bool:
        """Whether there is anything that this caller cannot take."""
        return self._share_of(caller).limited

    @asynccontextmanager
    async def place(self, caller: str, cost: float) -> AsyncGenerator[dict[str, str]]:
        """Around one request; yields the RateLimit fields for its answer. A QUOTA_EXCEEDED problem when the share is
        used up."""
        share = self._share_of(caller)
        if not share.limited:
            yield {}
            return
        place = uuid.uuid4().hex
        try:
            usage = await self._counters.take(caller, share, cost, place)
        except BaseException:  # it may have been counted already
            await self._give_back(caller, place)
            raise
        if usage.refused is not None:
            wait_s = self._request_s / share.concurrency if usage.refused == CONCURRENCY else usage.wait_s
            raise QuotaExceededError(share, usage, wait_s)
        fields = rate_limit_fields(share, usage)
        if share.concurrency == math.inf:
            yield fields
            return
        begun = time.monotonic()
        renewing = asyncio.create_task(self._renew(caller, place))
        try:
            yield fields
        finally:
            self._request_s += _WEIGHT * (time.monotonic() - begun - self._request_s)
            renewing.cancel()
            await self._give_back(caller, place, renewing)

    async def close(self) -> None:
        await asyncio.gather(*self._giving_back, return_exceptions=True)
        await self._counters.close()

    async def _give_back(self, caller: str, place: str, *before: asyncio.Task[None]) -> None:
        """In a task of its own, because RequestGuard cancels a request whose answer is whole, and so within this."""

        async def give_back() -> None:
            if before:
                await asyncio.wait(before)
            await self._counters.release(caller, place)

        task = asyncio.create_task(give_back())
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
        await asyncio.shield(task)

    async def _renew(self, caller: str, place: str) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._counters.renew(caller, place)
            except Exception:
                log.exception("the place of a request was not renewed")
