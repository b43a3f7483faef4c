"""A request that is delivered again is generated once: by one replica, and by replicas that share a Redis."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from contract import problems
from contract.callers import EVENTS_CALLER
from contract.cloudevents import CloudEvent
from contract.problems import ProblemError
from predictor.events.deduplication import Deduplicator
from predictor.events.redis_reply_store import LEASE_SECONDS, RedisReplyStore, StoreTimes
from predictor.limits import REPLIES, REPLY_BYTES, REPLY_SECONDS
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[3]


class FakeGeneration:
    """A PendingReply: waits for the gate, if there is one, and replies with `says` or raises it."""

    def __init__(self, number: str = "1", says: str | ProblemError = "x", gate: asyncio.Event | None = None) -> None:
        self.key: tuple[str, ...] = ("/test", number)
        self.caller = EVENTS_CALLER
        self.subject = f"job-{number}"
        self.says = says
        self.gate = gate
        self.calls = 0
        self.cancelled = asyncio.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    async def reply(self) -> CloudEvent:
        self.calls += 1
        if self.gate is not None:
            ends = {asyncio.create_task(self.gate.wait()), asyncio.create_task(self.cancelled.wait())}
            _, left = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in left:
                end.cancel()
        if isinstance(self.says, ProblemError):
            raise self.says
        says = "cancelled" if self.cancelled.is_set() else self.says
        return CloudEvent(id=self.key[1], source="/poet", type="t", data=says.encode())


def said(reply: CloudEvent) -> str:
    return (reply.data or b"").decode()


def full() -> ProblemError:
    return ProblemError(problems.OVERLOADED, "Full.", retry_after=1)


def redeliveries(found: str) -> float:
    return REGISTRY.get_sample_value("shangcai_redeliveries_total", {"found": found}) or 0.0


# One replica


async def test_a_redelivery_gets_the_first_reply() -> None:
    deduplicator, first, again = Deduplicator(), FakeGeneration(says="x"), FakeGeneration(says="y")

    assert said(await deduplicator.reply(first)) == "x"
    assert said(await deduplicator.reply(again)) == "x"
    assert again.calls == 0


async def test_a_transient_failure_reaches_all_deliveries_and_is_forgotten() -> None:
    deduplicator, gate = Deduplicator(), asyncio.Event()
    waiting = [asyncio.create_task(deduplicator.reply(FakeGeneration(says=full(), gate=gate))) for _ in range(2)]
    await eventually(lambda: deduplicator.busy)

    gate.set()

    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [ProblemError] * 2
    assert said(await deduplicator.reply(FakeGeneration(says="y"))) == "y"


async def test_closing_cancels_what_runs() -> None:
    deduplicator, generation = Deduplicator(), FakeGeneration(gate=asyncio.Event())
    waiting = asyncio.create_task(deduplicator.reply(generation))
    await eventually(lambda: generation.calls)

    await deduplicator.close()

    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert not deduplicator.busy


def test_the_defaults_are_the_named_ones() -> None:
    assert (REPLIES, REPLY_BYTES, REPLY_SECONDS, LEASE_SECONDS) == (16_384, 64 * 2**20, 600, 15)


async def test_the_oldest_replies_are_forgotten_when_there_are_too_many() -> None:
    deduplicator = Deduplicator(replies=2)
    for number in "123":
        await deduplicator.reply(FakeGeneration(number))

    assert [said(await deduplicator.reply(FakeGeneration(number, "again"))) for number in "231"] == ["x", "x", "again"]


async def test_the_oldest_replies_are_forgotten_when_they_are_too_large() -> None:
    deduplicator = Deduplicator(reply_bytes=3_000)
    for number in "123":
        await deduplicator.reply(FakeGeneration(number, "x" * 1_000))

    assert [len(said(await deduplicator.reply(FakeGeneration(number, "")))) for number in "231"] == [1_000, 1_000, 0]


async def test_replies_are_forgotten_after_a_while() -> None:
    deduplicator = Deduplicator(reply_seconds=100)
    await deduplicator.reply(FakeGeneration())

    now = time.monotonic()
    with mock.patch("time.monotonic", return_value=now + 99):
        assert said(await deduplicator.reply(FakeGeneration(says="y"))) == "x"
    with mock.patch("time.monotonic", return_value=now + 101):
        assert said(await deduplicator.reply(FakeGeneration(says="y"))) == "y"


async def test_old_cancellations_are_forgotten_too() -> None:
    deduplicator = Deduplicator(replies=2)
    for number in "123":
        await deduplicator.cancel(EVENTS_CALLER, f"job-{number}")

    replies = [said(await deduplicator.reply(FakeGeneration(number))) for number in "123"]
    assert replies == ["x", "cancelled", "cancelled"]


# Several replicas


@pytest.fixture
async def replica(redis_server: Any) -> AsyncIterator[Callable[..., Deduplicator]]:
    """Makes deduplicators that share a Redis, as those of several processes do."""
    async with AsyncExitStack() as stack:

        def make(service: str = "/poet", **settings: Any) -> Deduplicator:
            times = StoreTimes(**{"lease_seconds": 1.0, "outage_seconds": 0.1} | settings)
            deduplicator = Deduplicator(RedisReplyStore(redis_server.url, service, times))
            stack.push_async_callback(deduplicator.close)
            return deduplicator

        yield make


@pytest.fixture
async def leases(redis_server: Any) -> AsyncIterator[Callable[[], Any]]:
    """The milliseconds that each lease in Redis has left."""
    async with Redis.from_url(redis_server.url) as redis:

        async def ask() -> list[int]:
            return [await redis.pttl(name) for name in await redis.keys("shangcai:run:*")]

        yield ask


async def test_a_delivery_to_another_replica_waits_for_the_running_one(replica: Callable[..., Deduplicator]) -> None:
    one, other, gate = replica(), replica(), asyncio.Event()
    first, second = FakeGeneration(says="月 \N{WAXING CRESCENT MOON SYMBOL}", gate=gate), FakeGeneration(says="y")
    before = redeliveries("running"), redeliveries("done")
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.calls)
    waiting = asyncio.create_task(other.reply(second))
    await eventually(lambda: redeliveries("running") > before[0])
    assert not waiting.done()

    gate.set()

    assert await waiting == await running
    assert (first.calls, second.calls) == (1, 0)
    assert (redeliveries("running"), redeliveries("done")) == (before[0] + 1, before[1])


async def test_a_replica_knows_what_another_has_replied(replica: Callable[..., Deduplicator]) -> None:
    before = redeliveries("done")
    first = await replica().reply(FakeGeneration(says="x"))

    other, again = replica(), FakeGeneration(says="y")
    assert await other.reply(again) == first
    assert await other.reply(again) == first
    assert again.calls == 0
    assert redeliveries("done") == before + 2


async def test_after_a_transient_failure_the_replica_that_waits_tries(replica: Callable[..., Deduplicator]) -> None:
    one, other, gate = replica(), replica(), asyncio.Event()
    first = FakeGeneration(says=full(), gate=gate)
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.calls)
    waiting = asyncio.create_task(other.reply(FakeGeneration(says="y")))
    gate.set()

    with pytest.raises(ProblemError):
        await running
    assert said(await waiting) == "y"


async def test_the_lease_lasts_as_long_as_the_generation_and_no_longer(
    replica: Callable[..., Deduplicator], leases: Callable[[], Any]
) -> None:
    gate = asyncio.Event()
    generation = FakeGeneration(gate=gate)
    running = asyncio.create_task(replica(lease_seconds=2.0).reply(generation))
    await eventually(lambda: generation.calls)

    extended, [last] = 0, await leases()
    async with asyncio.timeout(60):
        while extended < 2:
            [left] = await leases()
            extended += left > last
            last = left
            await asyncio.sleep(0.01)

    gate.set()
    await running
    assert await leases() == []


async def test_two_services_that_share_a_redis_do_not_share_replies(replica: Callable[..., Deduplicator]) -> None:
    assert said(await replica("/poet").reply(FakeGeneration(says="a poem"))) == "a poem"
    assert said(await replica("/painter").reply(FakeGeneration(says="a picture"))) == "a picture"


async def test_waiting_for_a_lease_has_a_limit(replica: Callable[..., Deduplicator]) -> None:
    first = FakeGeneration(gate=asyncio.Event())
    running = asyncio.create_task(replica().reply(first))
    await eventually(lambda: first.calls)

    with pytest.raises(ProblemError, match=r"not finished this request within 0\.1 s") as refused:
        await replica(request_seconds=0.1).reply(FakeGeneration())

    assert refused.value.kind.transient
    running.cancel()


async def test_a_cancellation_reaches_the_running_generation_and_later_requests_in_any_replica(
    replica: Callable[..., Deduplicator],
) -> None:
    one, other = replica(lease_seconds=0.3), replica()
    first, later = FakeGeneration("1", gate=asyncio.Event()), FakeGeneration("2")
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.calls)

    await other.cancel(EVENTS_CALLER, "job-1")
    await other.cancel(EVENTS_CALLER, "job-2")

    assert said(await running) == "cancelled"
    assert said(await one.reply(later)) == "cancelled"


async def test_a_cancellation_of_another_caller_reaches_neither_what_runs_nor_what_comes(
    replica: Callable[..., Deduplicator],
) -> None:
    one, other = replica(lease_seconds=0.3), replica()
    running, later = FakeGeneration("1", gate=asyncio.Event()), FakeGeneration("2")
    running.caller = later.caller = "ann"
    reply = asyncio.create_task(one.reply(running))
    await eventually(lambda: running.calls)

    for caller in ("bob", EVENTS_CALLER):
        for replica_of_caller in (one, other):
            await replica_of_caller.cancel(caller, "job-1")
            await replica_of_caller.cancel(caller, "job-2")
    assert said(await one.reply(later)) == "x"
    assert not running.cancelled.is_set()

    await other.cancel("ann", "job-1")
    assert said(await reply) == "cancelled"


OWNER = """
import asyncio, sys
from predictor.events.deduplication import Deduplicator
from predictor.events.redis_reply_store import RedisReplyStore, StoreTimes

class Generation:
    key = ("/test", "1")
    caller = "events"
    subject = "job-1"
    def cancel(self): ...
    async def reply(self):
        print("running", flush=True)
        await asyncio.Event().wait()

asyncio.run(Deduplicator(RedisReplyStore(sys.argv[1], "/poet", StoreTimes(lease_seconds=1.0))).reply(Generation()))
"""


@pytest.fixture
def owner(redis_server: Any) -> Iterator[subprocess.Popen[str]]:
    """Another process, which generates request 1 and never ends."""
    command = [sys.executable, "-c", OWNER, redis_server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
        process.kill()


@pytest.mark.slow
async def test_another_replica_takes_over_what_a_killed_one_was_generating(
    owner: subprocess.Popen[str], replica: Callable[..., Deduplicator]
) -> None:
    before = redeliveries("running")
    generation = FakeGeneration(says="y")
    waiting = asyncio.create_task(replica().reply(generation))
    await eventually(lambda: redeliveries("running") > before)
    assert generation.calls == 0

    owner.send_signal(signal.SIGKILL)

    assert said(await asyncio.wait_for(waiting, 60)) == "y"
    assert generation.calls == 1


# Without Redis


async def test_without_redis_each_replica_uses_its_own_memory_and_logs_it_once(
    replica: Callable[..., Deduplicator], redis_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    deduplicator, gate = replica(lease_seconds=0.3), asyncio.Event()
    generation = FakeGeneration("1", gate=gate)
    running = asyncio.create_task(deduplicator.reply(generation))
    await eventually(lambda: generation.calls)

    redis_server.kill()
    await eventually(lambda: caplog.records)
    gate.set()

    assert said(await running) == "x"
    assert said(await deduplicator.reply(FakeGeneration("1", "again"))) == "x"
    assert said(await deduplicator.reply(FakeGeneration("2"))) == "x"
    await deduplicator.cancel(EVENTS_CALLER, "job-3")
    assert said(await deduplicator.reply(FakeGeneration("3"))) == "cancelled"
    outages = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(outages) == 1
    assert "own memory" in outages[0].getMessage()


async def test_when_redis_is_back_it_is_used_again(
    replica: Callable[..., Deduplicator],
    redis_server: Any,
    leases: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "predictor.events.redis_reply_store")
    one, other, gate = replica(), replica(), asyncio.Event()
    first, second = FakeGeneration("1", gate=gate), FakeGeneration("1", "y")
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.calls)
    redis_server.kill()
    await eventually(lambda: caplog.records)

    redis_server.start()

    await eventually(lambda: "the store can be reached again" in caplog.messages)
    async with asyncio.timeout(60):
        while not await leases():  # the new Redis is empty
            await asyncio.sleep(0.01)
    waiting = asyncio.create_task(other.reply(second))
    gate.set()
    assert await waiting == await running
    assert second.calls == 0


async def test_only_the_first_request_waits_for_a_missing_redis(caplog: pytest.LogCaptureFixture) -> None:
    deduplicator = Deduplicator(RedisReplyStore("redis://127.0.0.1:1/0", "/poet"))
    assert said(await deduplicator.reply(FakeGeneration("1"))) == "x"

    with mock.patch("redis.asyncio.connection.Connection.connect", side_effect=AssertionError):
        assert said(await deduplicator.reply(FakeGeneration("2"))) == "x"

    assert len(caplog.records) == 1
    await deduplicator.close()


def test_what_only_few_deployments_need_is_imported_only_there() -> None:
    code = (
        "import sys, predictor.settings, predictor.events.progress, predictor.events.deduplication; "
        "print({'httpx2', 'redis', 'fsspec'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
