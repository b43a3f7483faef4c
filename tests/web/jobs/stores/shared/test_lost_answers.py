"""Redis has done what it was asked for, but its answer is lost: what is sent again is done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
import redis

from tests.support.jobs import SharedStore, added, claimed, entries_of, new_record, pairs
from web.jobs.stores.redis_store import RedisStore


class Lossy(Protocol):
    url: str
    command: bytes
    lose: int
    lost: int


@pytest.fixture
async def store(shared: SharedStore, lossy: Lossy) -> RedisStore:
    """Over the lossy connection."""
    return await shared(lossy.url)


WRITES: dict[str, tuple[Callable[[RedisStore], Awaitable[Any]], Any, list[str]]] = {
    "append": (lambda store: store.append("a", [("token", "1"), ("token", "2")], 1), None, ["1", "2", "end"]),
    "append_progress": (lambda store: store.append_progress("a", 3, lambda _: ("token", "1"), 1), None, ["1", "end"]),
    "start": (lambda store: store.start("a", 5.5, 1), True, ["end"]),
    "reset": (lambda store: store.reset("a", 1), None, ["end"]),
    "finish": (lambda store: store.finish("a", "completed", "end", 7, 1), True, ["end"]),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("lost", [1, 2])
async def test_a_write_whose_answer_is_lost_is_done_once(
    store: RedisStore, lossy: Lossy, redis_client: redis.Redis, name: str, lost: int
) -> None:
    write, answer, log = WRITES[name]
    await added(store, "a", "b")
    await claimed(store)
    lossy.command, lossy.lose = b"EVALSHA", lost
    assert await write(store) == answer
    assert lossy.lost == lost
    await store.finish("a", "completed", "end", 7, 1)
    assert [data for _, data in pairs(await entries_of(store, "a"))] == log
    record = await store.get("a")
    assert record is not None
    assert record.attempts == (1 if name == "start" else 0)
    assert redis_client.xlen("shangcai:queue:poet") == 1
    assert await store.open_jobs() == 1


async def test_other_writes_between_do_not_hide_that_it_was_done(store: RedisStore, lossy: Lossy) -> None:
    await added(store, "a")
    lossy.command, lossy.lose = b"EVALSHA", 1
    await store.append("a", [("token", "1")])
    for number in range(2, 12):
        await store.append("a", [("token", str(number))])
    lossy.lose = 1
    await store.append("a", [("token", "12")])
    await store.finish("a", "completed", "end", 7)
    assert [data for _, data in pairs(await entries_of(store, "a"))] == [*map(str, range(1, 13)), "end"]


async def test_a_job_whose_answer_is_lost_is_added_once(
    store: RedisStore, lossy: Lossy, redis_client: redis.Redis
) -> None:
    lossy.command, lossy.lose = b"EXEC", 1
    record = new_record()
    assert await store.add(record) == record
    assert lossy.lost == 1
    assert redis_client.xlen("shangcai:queue:poet") == 1
    assert (await claimed(store)).job == "a"
    assert await store.finish("a", "completed", "end", 7)
    assert redis_client.xlen("shangcai:queue:poet") == 0


async def test_a_claim_whose_answer_is_lost_is_counted_once(store: RedisStore, lossy: Lossy) -> None:
    await added(store, "a")
    lossy.command, lossy.lose = b"shangcai:job:a", 1
    assert (await claimed(store)).generation == 1
