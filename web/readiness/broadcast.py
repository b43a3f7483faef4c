"""Replicas share what they observe of the models: a job may be watched on one replica and run on another, and a model
that one replica has woken is awake for all.

Each replica broadcasts its changes; every REPEAT_SECONDS, which models it has seen to answer meanwhile, so that no idle
window passes elsewhere; and `pending` before it takes silence for a wake-up, to which those that the model is answering
say `ready`. Replicas of commit 73ec94b do not know that and ignore it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping

from pydantic import ValidationError

from contract import ModelStatus
from web.jobs.background_loops import IDLE_SECONDS, BackgroundLoop, BackgroundLoops
from web.jobs.store import JobStore
from web.readiness.model_readiness import Origin, Readiness

log = logging.getLogger(__name__)

MOST_UNSENT = 64
"""Most changes that wait to be sent. One more replaces the oldest."""

REPEAT_SECONDS = 10.0
"""Between two broadcasts of a model that goes on answering."""


class ReadinessBroadcast:
    """Between the replicas that share a store. Does nothing where the store is not shared."""

    def __init__(
        self, store: JobStore, readiness: Mapping[str, Readiness], background: BackgroundLoops | None = None
    ) -> None:
        self._background = background or BackgroundLoops()
        self._store = store
        self._readiness = readiness
        self._replica = uuid.uuid4().hex
        self._unsent: asyncio.Queue[ModelStatus] = asyncio.Queue(MOST_UNSENT)
        self._sending: list[BackgroundLoop] = []

    def open(self) -> None:
        if not self._store.shared:
            return
        self._store.subscribe(self._receive)
        for readiness in self._readiness.values():
            readiness.subscribe(self._enqueue)
        self._sending = [
            self._background.start("the broadcast of the models' readiness", self._send),
            self._background.start("the repetition of which models answer", self._repeat),
        ]

    async def close(self) -> None:
        """What is unsent is dropped."""
        await self._background.close(*self._sending)

    def _enqueue(self, status: ModelStatus, origin: Origin) -> None:
        if origin == "received":  # every replica has received it
            return
        if self._unsent.full():
            self._unsent.get_nowait()
        self._unsent.put_nowait(status)

    async def _send(self) -> None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                status = await self._unsent.get()
        except TimeoutError:
            return
        await self._store.broadcast(f"{self._replica} {status.model_dump_json(exclude_none=True)}")

    async def _repeat(self) -> None:
        begun = time.monotonic()
        await asyncio.sleep(REPEAT_SECONDS)
        for readiness in self._readiness.values():
            if readiness.observed_at is not None and readiness.observed_at >= begun and readiness.state == "ready":
                readiness.repeat()

    def _receive(self, message: str) -> None:
        replica, _, document = message.partition(" ")
        if replica == self._replica:
            return
        try:
            status = ModelStatus.of_any_version(document)
        except ValidationError:
            log.debug("a message of another version: %r", message)
            return
        if status.name in self._readiness:
            self._readiness[status.name].receive(status)
