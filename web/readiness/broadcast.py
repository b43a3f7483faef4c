"""Replicas share what they observe of the models: a job may be watched on one replica and run on another, and a model
that one replica has woken is awake for all."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress

from pydantic import ValidationError

from contract import ModelStatus, ProblemError
from web.jobs.store import JobStore
from web.readiness.model_readiness import Origin, Readiness

log = logging.getLogger(__name__)

MOST_UNSENT = 64
"""Most changes that wait to be sent. One more replaces the oldest."""


class ReadinessBroadcast:
    """Between the replicas that share a store. Does nothing where the store is not shared."""

    def __init__(self, store: JobStore, readiness: Mapping[str, Readiness]) -> None:
        self._store = store
        self._readiness = readiness
        self._replica = uuid.uuid4().hex
        self._unsent: asyncio.Queue[ModelStatus] = asyncio.Queue(MOST_UNSENT)
        self._sending: asyncio.Task[None] | None = None

    def open(self) -> None:
        if not self._store.shared:
            return
        self._store.subscribe(self._receive)
        for readiness in self._readiness.values():
            readiness.subscribe(self._enqueue)
        self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        """What is unsent is dropped."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})

    def _enqueue(self, status: ModelStatus, origin: Origin) -> None:
        if origin == "received":  # every replica has received it
            return
        if self._unsent.full():
            self._unsent.get_nowait()
        self._unsent.put_nowait(status)

    async def _send(self) -> None:
        while True:
            status = await self._unsent.get()
            with suppress(ProblemError):  # the store has logged it
                await self._store.broadcast(f"{self._replica} {status.model_dump_json(exclude_none=True)}")

    def _receive(self, message: str) -> None:
        replica, _, document = message.partition(" ")
        if replica == self._replica:
            return
        try:
            status = ModelStatus.model_validate_json(document)
        except ValidationError:
            log.debug("a message of another version: %r", message)
            return
        if status.name in self._readiness:
            self._readiness[status.name].receive(status)
