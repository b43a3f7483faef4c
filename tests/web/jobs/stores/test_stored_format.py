"""What is stored in Redis stays readable to other versions: here, literally, as commit 73ec94b wrote and read it.

While a deployment is rolled out, replicas of both versions work on the same jobs.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from tests.support.jobs import LIMIT, SharedStore, claimed, entries_of, new_record, pairs
from tests.support.waiting import eventually
from web.jobs.record import JobRecord
from web.jobs.stores import redis_queue
from web.jobs.stores.redis_connection import UnknownSchema, check_schema

DEADLINE = 4_000_000_000.5
HASH: dict[Any, Any] = {
    "model": "poet",
    "kind": "text",
    "order": '{"prompt":"春","seed":7,"model":"poet"}',
    "digest": "d",
    "created": "1700000000.25",
    "deadline": str(DEADLINE),
    "headers": '{"X-Request-Id": "r"}',
}
RECORD = JobRecord(
    id="a",
    model="poet",
    kind="text",
    request='{"prompt":"春","seed":7,"model":"poet"}',
    digest="d",
    created=1700000000.25,
    deadline=DEADLINE,
    headers={"X-Request-Id": "r"},
)


@pytest.fixture
def raw(redis_client: redis.Redis) -> Any:
    """Any: the client's annotations name the answers of every protocol version."""
    return redis_client


NEW_FIELDS = {"caller", "cost", "generation", "holder", "writes"}
"""Which 73ec94b ignores."""


def hash_of(raw: Any) -> dict[str, str]:
    """What 73ec94b reads of the job."""
    return {name: value for name, value in raw.hgetall("shangcai:job:a").items() if name not in NEW_FIELDS}


@pytest.fixture
def old_job(raw: Any) -> str:
    """A running job that 73ec94b has stored; its entry in the queue."""
    raw.xgroup_create("shangcai:queue:poet", "web", id="0", mkstream=True)
    entry = str(raw.xadd("shangcai:queue:poet", {"job": "a"}))
    raw.hset(
        "shangcai:job:a",
        mapping={**HASH, "entry": entry, "started": "1700000001.5", "attempts": "1", "told": "2"},
    )
    raw.zadd("shangcai:open", {"a": DEADLINE})
    raw.xadd("shangcai:log:a", {"event": "status", "data": '{"state":"running"}'})
    raw.xadd("shangcai:log:a", {"event": "token", "data": '{"text":"春天"}'})
    raw.xreadgroup("web", "replica", {"shangcai:queue:poet": ">"}, count=1)
    return entry


async def test_a_job_of_the_old_version_is_read_and_gone_on_with(
    shared: SharedStore, raw: Any, old_job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.05)  # its replica has died
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    store = await shared()
    assert await store.get("a") == replace(RECORD, started=1700000001.5, attempts=1)
    assert await store.open_jobs() == 1
    assert await store.overdue(DEADLINE) == ["a"]
    claim = await claimed(store)
    assert (claim.model, claim.job, claim.entry) == ("poet", "a", old_job)
    await store.append_progress("a", 2, lambda _: ("token", "nothing new"))
    await store.append_progress("a", 3, lambda before: ("token", str(before)))
    assert await store.finish("a", "completed", '{"text":"春天的"}', 1700000002.0)
    assert pairs(await entries_of(store, "a")) == [
        ("status", '{"state":"running"}'),
        ("token", '{"text":"春天"}'),
        ("token", "2"),
        ("result", '{"text":"春天的"}'),
    ]
    assert raw.xlen("shangcai:queue:poet") == 0
    assert raw.xpending("shangcai:queue:poet", "web")["pending"] == 0


async def test_an_ended_job_of_the_old_version_is_read(shared: SharedStore, raw: Any) -> None:
    raw.hset("shangcai:job:a", mapping={**HASH, "end": "failed", "ended": "1700000002.0", "outcome": "{}"})
    raw.xadd("shangcai:log:a", {"event": "error", "data": ""})
    store = await shared()
    record = await store.get("a")
    assert record is not None
    assert (record.state, record.ended, record.outcome, record.attempts) == ("failed", 1700000002.0, "{}", 0)
    assert pairs(await entries_of(store, "a")) == [("error", "{}")]


async def test_the_old_version_reads_what_is_stored(shared: SharedStore, raw: Any) -> None:
    store = await shared()
    await store.add(RECORD)
    [(entry, queued)] = raw.xrange("shangcai:queue:poet")
    assert queued == {"job": "a", "caller": "default", "cost": "1.0"}  # the last two it ignores
    assert hash_of(raw) == {**HASH, "entry": entry}
    assert raw.zrange("shangcai:open", 0, -1, withscores=True) == [("a", DEADLINE)]
    assert (await claimed(store)).entry == entry
    [pending] = raw.xpending_range("shangcai:queue:poet", "web", min="-", max="+", count=9)
    assert (pending["message_id"], pending["consumer"]) == (entry, "replica")
    await store.start("a", 1700000001.5)
    await store.append("a", [("status", '{"state":"running"}')])
    await store.append_progress("a", 2, lambda _: ("token", '{"text":"春天"}'))
    running = {**HASH, "entry": entry, "started": "1700000001.5", "attempts": "1", "told": "2"}
    assert hash_of(raw) == running
    await store.reset("a")
    assert hash_of(raw) == {**HASH, "entry": entry, "attempts": "1"}
    await store.finish("a", "cancelled", '{"type":"x"}', 1700000002.0)
    assert hash_of(raw) == {
        **HASH,
        "order": '{"prompt":"-"}',  # which it reads, too
        "entry": entry,
        "attempts": "1",
        "end": "cancelled",
        "ended": "1700000002.0",
        "outcome": '{"type":"x"}',
    }
    assert [found for _, found in raw.xrange("shangcai:log:a")] == [
        {"event": "status", "data": '{"state":"running"}'},
        {"event": "token", "data": '{"text":"春天"}'},
        {"event": "error", "data": ""},
    ]
    assert not raw.exists("shangcai:open")


async def test_the_old_version_hears_of_ends_and_looks_for_all_else(shared: SharedStore, raw: Any) -> None:
    """Every 2 s; a message for each token of every job would cost every replica more than that."""
    store = await shared()
    with raw.pubsub(ignore_subscribe_messages=True) as messages:
        messages.subscribe("shangcai:changed", "shangcai:ended", "shangcai:news")
        messages.get_message(timeout=1)
        await store.add(new_record())
        await store.start("a", 1)
        await store.append("a", [("token", "x")])
        await store.finish("a", "failed", "{}", 2)
        await store.broadcast("春")
        found: list[tuple[str, str]] = []

        def all_received() -> bool:
            message = messages.get_message()
            if message is not None:
                found.append((message["channel"], message["data"]))
            return len(found) == 3

        await eventually(all_received)
    assert found == [("shangcai:changed", "a"), ("shangcai:ended", "a"), ("shangcai:news", "春")]


@pytest.mark.usefixtures("only_messages")
async def test_messages_of_the_old_version_are_received(shared: SharedStore, raw: Any) -> None:
    store = await shared()
    await store.add(new_record())
    received: set[str] = set()
    store.subscribe(received.add)
    watching = asyncio.create_task(entries_of(store, "a"))
    waiting = asyncio.create_task(store.wait_for_end("a"))

    def listens() -> bool:
        raw.publish("shangcai:news", "春")
        return received == {"春"}

    await eventually(listens)
    raw.xadd("shangcai:log:a", {"event": "result", "data": ""})
    raw.hset("shangcai:job:a", mapping={"end": "completed", "ended": "2.0", "outcome": json.dumps("春")})
    for channel in ("shangcai:changed", "shangcai:ended"):
        raw.publish(channel, "a")
    async with asyncio.timeout(LIMIT):
        assert pairs(await watching) == [("result", json.dumps("春"))]
        await waiting


@pytest.mark.parametrize("version", [None, "1"])
async def test_the_version_of_today_is_taken(redis_url: str, raw: Any, version: str | None) -> None:
    if version is not None:
        raw.set("shangcai:schema", version)
    await check_schema(redis_url)


@pytest.mark.parametrize("version", ["2", "1.1", "春"])
async def test_a_newer_version_is_left_alone(redis_url: str, raw: Any, version: str) -> None:
    raw.set("shangcai:schema", version)
    with pytest.raises(UnknownSchema, match=f"store_url: what is stored there has the version '{version}'"):
        await check_schema(redis_url)


async def test_the_version_is_not_waited_for(closed_port: int) -> None:
    await check_schema(f"redis://127.0.0.1:{closed_port}")
