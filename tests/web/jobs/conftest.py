"""Stores of either sort, and replicas that work on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.support.jobs import KEEP_SECONDS, LIMIT, MakeStore, NewStore, Replica, ScriptedBackend, SharedStore
from web.jobs import background_loops, worker
from web.jobs.service import JobService
from web.jobs.store import JobStore
from web.jobs.stores import memory_queue, redis_logs, redis_queue, redis_store
from web.jobs.stores.memory_store import MemoryStore
from web.jobs.stores.redis_store import RedisStore
from web.settings import Settings


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 0.005)
    monkeypatch.setattr(background_loops, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(worker, "REAP_SECONDS", 0.05)
    for queue in (memory_queue, redis_queue):
        monkeypatch.setattr(queue, "PLACE_SECONDS", 0)


@pytest.fixture
def only_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told by a message is not found in time."""
    for module in (redis_logs, redis_store):
        monkeypatch.setattr(module, "POLL_SECONDS", 100 * LIMIT)


@pytest.fixture
async def shared(redis_url: str) -> AsyncGenerator[SharedStore]:
    """Opens a replica's store on the same Redis as all others."""
    stores: list[RedisStore] = []

    async def make(
        url: str = redis_url,
        keep_seconds: float = KEEP_SECONDS,
        log_entries: int = 1_000,
        patience_seconds: float = 5,
        most_bytes: int = 1_000_000,
    ) -> RedisStore:
        store = RedisStore(url, keep_seconds, log_entries, patience_seconds, most_bytes)
        stores.append(store)
        await store.open()
        return store

    yield make
    for store in stores:
        await store.close()


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> MakeStore:
    """Opens a store of either sort."""
    if request.param == "redis":
        made: MakeStore = request.getfixturevalue("shared")
        return made

    async def make(keep_seconds: float = KEEP_SECONDS, log_entries: int = 1_000) -> JobStore:
        return MemoryStore(keep_seconds, 1_000_000, log_entries)

    return make


@pytest.fixture
async def store(make: MakeStore) -> JobStore:
    return await make()


@pytest.fixture(params=["memory", "redis"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """Makes a store of either sort for a replica, which opens and closes it."""
    if request.param == "memory":
        return lambda: MemoryStore(KEEP_SECONDS, 1_000_000, 1_000)
    url = request.getfixturevalue("redis_url")
    return lambda: RedisStore(url, KEEP_SECONDS, 1_000, 5)


@pytest.fixture
async def replica() -> AsyncGenerator[Replica]:
    """Starts a replica with a backend, on a store of its own where none is given."""
    made: list[tuple[JobService, ScriptedBackend]] = []

    async def make(backend: ScriptedBackend, store: JobStore | None = None, **settings: Any) -> JobService:
        settings = {"models": {"poet": "http://poet.test"}, "grace_seconds": 1, **settings}
        jobs = JobService(Settings(**settings), store or MemoryStore(KEEP_SECONDS, 1_000_000, 1_000), backend)
        made.append((jobs, backend))
        await jobs.open()
        return jobs

    yield make
    await asyncio.sleep(0.01)  # for what is just being begun
    for jobs, backend in made:
        for record in backend.runs:  # or the end of what hangs is waited for
            await jobs.cancel(record.id)
        await jobs.close(LIMIT)
