"""Gauges of what has to be asked for: they are as old as the last round of a background loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from contract import JobState, ProblemError
from web.metrics import JOBS, OLDEST_JOB, STORE_BYTES, STORE_MOST_BYTES
from web.telemetry.name_limit import OTHER
from web.telemetry.store_usage import StoreUsage

log = logging.getLogger(__name__)

REFRESH_SECONDS = 10.0
"""Between two rounds; longer where one takes long."""

LONGEST_SHARE = 20
"""A round is followed by a pause of so many times what it took."""

_STATES: tuple[JobState, ...] = ("queued", "running")


class RefreshedMetrics:
    """Of the store's jobs. Those of models that are not served here, which only other replicas know, are one: `other`.
    `notes` are called in each round, too."""

    def __init__(
        self,
        models: Collection[str],
        usage: Callable[[], Awaitable[StoreUsage]],
        now: Callable[[], Awaitable[float]],
        *notes: Callable[[], None],
    ) -> None:
        self._models = models
        self._usage = usage
        self._now = now
        self._notes = notes

    async def turn(self) -> None:
        """One round and the pause after it. Raises the UNAVAILABLE problem of a store that is away; nothing else, as
        web serves without it."""
        begun = time.monotonic()
        try:
            for note in self._notes:
                note()
            self._show(await self._usage(), await self._now())
        except ProblemError:
            raise
        except Exception:
            log.exception("the metrics of the store are not refreshed")
        await asyncio.sleep(max(REFRESH_SECONDS, LONGEST_SHARE * (time.monotonic() - begun)))

    def _show(self, usage: StoreUsage, now: float) -> None:
        STORE_BYTES.set(usage.size)
        STORE_MOST_BYTES.set(usage.most_size)
        shown = StoreUsage(usage.size, usage.most_size)
        for (model, state), count in usage.jobs.items():
            shown.jobs[self._label(model), state] += count
        for model, created in usage.oldest.items():
            label = self._label(model)
            shown.oldest[label] = min(created, shown.oldest.get(label, created))
        for label in (*self._models, OTHER):
            for state in _STATES:
                JOBS.labels(label, state).set(shown.jobs[label, state])
            OLDEST_JOB.labels(label).set(max(now - shown.oldest.get(label, now), 0.0))

    def _label(self, model: str) -> str:
        return model if model in self._models else OTHER
