"""What replicas share of each model."""

from __future__ import annotations

from typing import Any

from web.jobs.store import ModelDocuments
from web.jobs.stores.redis_connection import outages
from web.jobs.stores.redis_keys import DOCUMENTS


class RedisDocuments(ModelDocuments):
    """A field of a hash for each."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def put(self, model: str, document: str) -> None:
        async with outages(self._redis):
            await self._redis.hset(DOCUMENTS, model, document)

    async def all(self) -> dict[str, str]:
        async with outages(self._redis):
            documents: dict[str, str] = await self._redis.hgetall(DOCUMENTS)
            return documents
