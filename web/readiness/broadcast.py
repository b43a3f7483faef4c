"""What is seen of the models here is told to the other replicas, and what they tell is believed: a job may be watched
on one and carried out on another, and a model that one has woken is awake for all."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress

from pydantic import ValidationError

from contract import ModelStatus, ProblemError
from web.jobs.store import JobStore
from web.readiness.model_readiness import Readiness

log = logging.getLogger(__name__)

QUEUE = 64
"""Most that waits to be told; one more takes the place of the oldest."""


class ReadinessBroadcast:
    """Those that share a store; where it is not shared there are none."""

    def __init__(self, store: JobStore, readiness: Mapping[str, Readiness]) -> None:
        self._store = store
        self._readiness = readiness
        self._name = uuid.uuid4().hex
        self._news: asyncio.Queue[ModelStatus] = asyncio.Queue(QUEUE)
        self._sending: asyncio.Task[None] | None = None

    def open(self) -> None:
        if not self._store.shared:
            return
        self._store.hear = self._hear
        for readiness in self._readiness.values():
            readiness.spread = self._put
        self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        """What has not been told never will be."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})

    def _put(self, status: ModelStatus) -> None:
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(status)

    async def _send(self) -> None:
        while True:
            status = await self._news.get()
            with suppress(ProblemError):  # what it said is in the log
                await self._store.spread(f"{self._name} {status.model_dump_json(exclude_none=True)}")

    def _hear(self, news: str) -> None:
        name, _, document = news.partition(" ")
        if name == self._name:
            return
        try:
            status = ModelStatus.model_validate_json(document)
        except ValidationError:
            log.debug("news of another version: %r", news)
            return
        if status.name in self._readiness:
            self._readiness[status.name].hear(status)
