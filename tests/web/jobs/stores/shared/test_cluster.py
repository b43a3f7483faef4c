"""The shared store on a Redis Cluster, which refuses what is not on one node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
import redis

from contract import Webhook
from tests.support.jobs import KEEP_SECONDS, added, claimed, entries_of, new_record, pairs
from tests.support.processes import free_port
from tests.support.waiting import eventually, wait_until
from tests.support.web.samples import Sample
from web.jobs.record import QueuePlace
from web.jobs.store import ClaimLost
from web.jobs.stores import redis_queue
from web.jobs.stores.redis_store import RedisStore


@pytest.fixture(scope="module")
def cluster_port(start_redis: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> int:
    """Of the one node of a cluster, whose bus has the port 10,000 above."""
    port = free_port()
    start_redis(port, tmp_path_factory.mktemp("cluster"), **{"cluster-enabled": "yes"})
    with redis.Redis(port=port, decode_responses=True) as node:
        client: Any = node
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok")
    return port


@pytest.fixture
def node(cluster_port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=cluster_port, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
async def stores(node: redis.Redis, cluster_port: int) -> AsyncGenerator[list[RedisStore]]:
    """Of two replicas."""
    url = f"redis+cluster://127.0.0.1:{cluster_port}"
    opened = [RedisStore(url, KEEP_SECONDS, 1_000, 5, most_bytes=200_000) for _ in range(2)]
    for store in opened:
        await store.open()
    yield opened
    for store in opened:
        await store.close()


async def test_a_job_from_its_request_to_its_end(stores: list[RedisStore], node: redis.Redis) -> None:
    one, other = stores
    record = await one.add(new_record(caller="ann"))
    await one.add(new_record("b", caller="ann"))
    assert await other.place(record) == QueuePlace(position=0, claimed=0)
    assert await other.open_jobs() == 2
    watching = asyncio.create_task(entries_of(one, "a"))
    waiting = asyncio.create_task(one.wait_for_end("a"))
    claim = await claimed(other)
    assert await other.start("a", 5, claim.generation)
    await other.append("a", [("token", "x")], claim.generation)
    await other.append_progress("a", 3, lambda _: ("token", "y"), claim.generation)
    assert await other.finish("a", "completed", "end", time.time(), claim.generation)
    assert pairs(await watching) == [("token", "x"), ("token", "y"), ("result", "end")]
    await waiting
    assert [job.id for job in await one.jobs_of("ann", 9)] == ["b", "a"]
    ended = await one.get("a")
    assert ended is not None
    await one.delete(ended)
    assert await other.get("a") is None
    assert await other.open_jobs() == 1
    assert all("{" in key for key in node.scan_iter("*"))


async def test_a_claim_is_taken_over(stores: list[RedisStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_queue, "LEASE_SECONDS", 0.05)
    monkeypatch.setattr(redis_queue, "BLOCK_SECONDS", 0.05)
    one, other = stores
    await added(one, "a")
    lost, claim = await claimed(one), await claimed(other)
    with pytest.raises(ClaimLost):
        await one.append("a", [("token", "late")], lost.generation)
    assert list(await one.renew([lost])) == [lost]
    await one.release(lost)
    await other.acknowledge(claim)
    assert await other.place(new_record()) is None


async def test_what_ended_first_is_forgotten_where_there_is_too_much(stores: list[RedisStore]) -> None:
    store, _ = stores
    for job in "abcdefg":
        await added(store, job)
        await store.finish(job, "completed", "x" * 40_000, time.time())
    assert "".join([job for job in "abcdefg" if await store.get(job)]) == "defg"


async def test_all_replicas_hear_what_one_broadcasts(stores: list[RedisStore]) -> None:
    one, other = stores
    received: set[str] = set()
    other.subscribe(received.add)

    async def heard() -> bool:
        await one.broadcast("春")
        return received == {"春"}

    await eventually(heard)
    assert abs(await one.now() - time.time()) < 60


async def test_the_end_of_a_job_is_due_to_its_webhook(stores: list[RedisStore], node: redis.Redis) -> None:
    one, other = stores
    record = await one.add(new_record(webhook=Webhook(url="https://hooks.example.com/"), deadline=4e9))
    assert await other.due.claim(1e9, 10, 9) == []
    await other.finish("a", "completed", "{}", 1e9)
    [claim] = await one.due.claim(1e9, 10, 9)
    assert claim.job == "a"
    await one.note_webhook(record, Webhook(url="https://hooks.example.com/", delivered=True))
    found = await other.get("a")
    assert found is not None
    assert found.webhook == Webhook(url="https://hooks.example.com/", delivered=True)
    await one.due.settle(claim)
    assert await other.due.claim(3e9, 10, 9) == []
    assert node.zcard("shangcai:{jobs}:due") == 0


async def test_its_jobs_are_counted_and_its_commands(stores: list[RedisStore]) -> None:
    one, other = stores
    pipelines, commands = (Sample("store_command_seconds_count", command=name) for name in ("PIPELINE", "HGETALL"))
    await added(one, "a", "b")
    await other.start("b", await other.now())
    assert (await other.usage()).jobs == {("poet", "queued"): 1, ("poet", "running"): 1}
    before = commands.grown
    await other.get("a")
    assert (commands.grown, pipelines.grown > 0) == (before + 1, True)
