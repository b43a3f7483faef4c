"""Counts what callers take: in memory for one replica, in Redis for all (`web.callers.redis_counters`)."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Protocol

from web.callers.share import CONCURRENCY, COST, REQUESTS, Rate, Share, Usage

LEASE_SECONDS = 30.0
"""How long a place is kept for a request of which nothing is heard: its replica may have been killed."""

SWEEP = 10_000
"""Entries above which those are looked for that say nothing any more."""


class ShareCounters(Protocol):
    """Counts requests, their costs, and where that is limited those that are under way, each in a `place`."""

    async def take(self, caller: str, share: Share, cost: float, place: str) -> Usage:
        """Count one request, unless the share has no room for it; all in one step."""

    async def renew(self, caller: str, place: str) -> None:
        """The request is still under way. Must be said from time to time where counters are shared."""

    async def release(self, caller: str, place: str) -> None:
        """The request has ended."""

    async def close(self) -> None: ...


def amounts(share: Share, cost: float) -> dict[str, tuple[Rate, float]]:
    """What one request of this cost takes of each rate."""
    taken = {REQUESTS: 1.0, COST: cost}
    return {name: (rate, taken[name]) for name, rate in share.rates.items()}


def available(rate: Rate, full_in: float) -> tuple[float, float]:
    """For Usage.rates. A large request may have taken more than there was."""
    return max(rate.full_s - full_in, 0) / rate.unit_s, full_in


class MemoryCounters:
    """By the generic cell rate algorithm (GCRA): of each rate only the time is kept at which its bucket is full again.

    A request that costs more than the whole burst passes when the bucket is full, and those after it wait longer.
    """

    def __init__(self) -> None:
        self._full_at: dict[tuple[str, str], float] = {}
        self._places: defaultdict[str, set[str]] = defaultdict(set)

    async def take(self, caller: str, share: Share, cost: float, place: str) -> Usage:
        now = time.monotonic()
        under_way = len(self._places.get(caller, ()))
        refused, wait_s = (CONCURRENCY if under_way >= share.concurrency else None), 0.0
        full_at: dict[str, float] = {}
        for name, (rate, amount) in amounts(share, cost).items():
            before = max(self._full_at.get((caller, name), now), now)
            wait = before + min(amount * rate.unit_s, rate.full_s) - rate.full_s - now
            if wait > max(wait_s, 1e-6):
                refused, wait_s = name, wait
            full_at[name] = before
        if refused is None:
            for name, (rate, amount) in amounts(share, cost).items():
                full_at[name] += amount * rate.unit_s
                self._full_at[caller, name] = full_at[name]
            if share.concurrency < math.inf:
                self._places[caller].add(place)
            under_way += 1
            self._sweep(now)
        rates = {name: available(rate, full_at[name] - now) for name, rate in share.rates.items()}
        return Usage(refused, wait_s, under_way, rates)

    async def renew(self, caller: str, place: str) -> None:
        """Nobody else could have taken it."""

    async def release(self, caller: str, place: str) -> None:
        self._places[caller].discard(place)
        if not self._places[caller]:
            del self._places[caller]

    async def close(self) -> None: ...

    def _sweep(self, now: float) -> None:
        if len(self._full_at) > SWEEP:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
