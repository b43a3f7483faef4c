"""What is asked for again is done once: in the memory of one replica, and across those that share a Redis."""

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
from contract.cloudevents import CloudEvent
from contract.problems import ProblemError
from predictor.events.deduplication import BoundedCache, Deduplicator
from predictor.events.redis_reply_store import LEASE_SECONDS, RedisReplyStore
from predictor.limits import REPLIES, REPLY_BYTES, REPLY_SECONDS

ROOT = Path(__file__).parents[3]


class FakeRun:
    """Waits for a gate, if there is one, and replies what it was told to."""

    def __init__(self, number: str = "1", says: str | ProblemError = "x", gate: asyncio.Event | None = None) -> None:
        self.key = ("/test", number)
        self.subject = f"job-{number}"
        self.says = says
        self.gate = gate
        self.runs = 0
        self.cancelled = asyncio.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    async def reply(self) -> CloudEvent:
        self.runs += 1
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


async def test_what_is_done_is_not_done_again() -> None:
    ledger, first, again = Deduplicator(), FakeRun(says="x"), FakeRun(says="y")

    assert said(await ledger.reply(first)) == "x"
    assert said(await ledger.reply(again)) == "x"
    assert again.runs == 0


async def test_a_failure_that_may_pass_is_told_to_all_who_wait_and_forgotten(eventually: Any) -> None:
    ledger, gate = Deduplicator(), asyncio.Event()
    waiting = [asyncio.create_task(ledger.reply(FakeRun(says=full(), gate=gate))) for _ in range(2)]
    await eventually(lambda: ledger._running)

    gate.set()

    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [ProblemError] * 2
    assert said(await ledger.reply(FakeRun(says="y"))) == "y"


async def test_closing_gives_up_what_runs(eventually: Any) -> None:
    ledger, run = Deduplicator(), FakeRun(gate=asyncio.Event())
    waiting = asyncio.create_task(ledger.reply(run))
    await eventually(lambda: run.runs)

    await ledger.close()

    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert not ledger._running


def test_the_defaults_are_the_named_ones() -> None:
    assert (REPLIES, REPLY_BYTES, REPLY_SECONDS, LEASE_SECONDS) == (16_384, 64 * 2**20, 600, 15)


async def test_the_oldest_replies_are_forgotten_when_there_are_too_many() -> None:
    ledger = Deduplicator(replies=2)
    for number in "123":
        await ledger.reply(FakeRun(number))

    assert [said(await ledger.reply(FakeRun(number, "again"))) for number in "231"] == ["x", "x", "again"]


async def test_the_oldest_replies_are_forgotten_when_they_are_too_large() -> None:
    ledger = Deduplicator(reply_bytes=3_000)
    for number in "123":
        await ledger.reply(FakeRun(number, "x" * 1_000))

    assert [len(said(await ledger.reply(FakeRun(number, "")))) for number in "231"] == [1_000, 1_000, 0]


async def test_replies_are_forgotten_after_a_while() -> None:
    ledger = Deduplicator(reply_seconds=100)
    await ledger.reply(FakeRun())

    now = time.monotonic()
    with mock.patch("time.monotonic", return_value=now + 99):
        assert said(await ledger.reply(FakeRun(says="y"))) == "x"
    with mock.patch("time.monotonic", return_value=now + 101):
        assert said(await ledger.reply(FakeRun(says="y"))) == "y"


def test_a_value_that_is_put_again_counts_once_and_what_is_too_large_alone_is_not_kept() -> None:
    memory: BoundedCache[str, int] = BoundedCache(number=10, size=10, seconds=100)
    memory.put("a", 1, 6)
    memory.put("a", 2, 6)
    memory.put("b", 3, 4)
    assert (memory.get("a"), memory.get("b")) == (2, 3)

    memory.put("c", 4, 11)
    assert [memory.get(key) for key in "abc"] == [None] * 3


async def test_so_are_cancellations() -> None:
    ledger = Deduplicator(replies=2)
    for number in "123":
        await ledger.cancel(f"job-{number}")

    assert [said(await ledger.reply(FakeRun(number))) for number in "123"] == ["x", "cancelled", "cancelled"]


# Several replicas


@pytest.fixture
async def replica(redis_server: Any) -> AsyncIterator[Callable[..., Deduplicator]]:
    """Makes ledgers that share a Redis, each as it were in a process of its own."""
    async with AsyncExitStack() as stack:

        def make(service: str = "/poet", **settings: Any) -> Deduplicator:
            settings = {"lease_seconds": 1.0, "away_seconds": 0.1} | settings
            ledger = Deduplicator(RedisReplyStore(redis_server.url, service, **settings))
            stack.push_async_callback(ledger.close)
            return ledger

        yield make


@pytest.fixture
async def leases(redis_server: Any) -> AsyncIterator[Callable[[], Any]]:
    """How long the leases last, in milliseconds, that are known to Redis now."""
    async with Redis.from_url(redis_server.url) as redis:

        async def ask() -> list[int]:
            return [await redis.pttl(name) for name in await redis.keys("shangcai:run:*")]

        yield ask


async def test_a_delivery_to_another_replica_waits_for_the_running_one(
    replica: Callable[..., Deduplicator], eventually: Any
) -> None:
    one, other, gate = replica(), replica(), asyncio.Event()
    first, second = FakeRun(says="月 \N{WAXING CRESCENT MOON SYMBOL}", gate=gate), FakeRun(says="y")
    before = redeliveries("running"), redeliveries("done")
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.runs)
    waiting = asyncio.create_task(other.reply(second))
    await eventually(lambda: redeliveries("running") > before[0])
    assert not waiting.done()

    gate.set()

    assert await waiting == await running
    assert (first.runs, second.runs) == (1, 0)
    assert (redeliveries("running"), redeliveries("done")) == (before[0] + 1, before[1])


async def test_a_replica_knows_what_another_has_replied(replica: Callable[..., Deduplicator]) -> None:
    before = redeliveries("done")
    first = await replica().reply(FakeRun(says="x"))

    other, again = replica(), FakeRun(says="y")
    assert await other.reply(again) == first
    assert await other.reply(again) == first
    assert again.runs == 0
    assert redeliveries("done") == before + 2


async def test_a_failure_that_may_pass_is_tried_by_the_one_that_waits(
    replica: Callable[..., Deduplicator], eventually: Any
) -> None:
    one, other, gate = replica(), replica(), asyncio.Event()
    first = FakeRun(says=full(), gate=gate)
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.runs)
    waiting = asyncio.create_task(other.reply(FakeRun(says="y")))
    gate.set()

    with pytest.raises(ProblemError):
        await running
    assert said(await waiting) == "y"


async def test_the_lease_is_kept_for_as_long_as_the_run_takes_and_no_longer(
    replica: Callable[..., Deduplicator], leases: Callable[[], Any], eventually: Any
) -> None:
    gate = asyncio.Event()
    run = FakeRun(gate=gate)
    running = asyncio.create_task(replica(lease_seconds=2.0).reply(run))
    await eventually(lambda: run.runs)

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
    assert said(await replica("/poet").reply(FakeRun(says="a poem"))) == "a poem"
    assert said(await replica("/painter").reply(FakeRun(says="a picture"))) == "a picture"


async def test_a_turn_is_not_waited_for_for_ever(replica: Callable[..., Deduplicator], eventually: Any) -> None:
    first = FakeRun(gate=asyncio.Event())
    running = asyncio.create_task(replica().reply(first))
    await eventually(lambda: first.runs)

    with pytest.raises(ProblemError, match=r"not finished this request within 0\.1 s") as refused:
        await replica(request_seconds=0.1).reply(FakeRun())

    assert refused.value.kind.transient
    running.cancel()


async def test_cancelling_reaches_the_replica_that_runs_it_and_those_that_have_not_heard_of_it(
    replica: Callable[..., Deduplicator], eventually: Any
) -> None:
    one, other = replica(lease_seconds=0.3), replica()
    first, later = FakeRun("1", gate=asyncio.Event()), FakeRun("2")
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.runs)

    await other.cancel("job-1")
    await other.cancel("job-2")

    assert said(await running) == "cancelled"
    assert said(await one.reply(later)) == "cancelled"


OWNER = """
import asyncio, sys
from predictor.events.deduplication import Deduplicator
from predictor.events.redis_reply_store import RedisReplyStore

class Run:
    key = ("/test", "1")
    subject = "job-1"
    def cancel(self): ...
    async def reply(self):
        print("running", flush=True)
        await asyncio.Event().wait()

asyncio.run(Deduplicator(RedisReplyStore(sys.argv[1], "/poet", lease_seconds=1.0)).reply(Run()))
"""


@pytest.fixture
def owner(redis_server: Any) -> Iterator[subprocess.Popen[str]]:
    """Another process, which is at work on request 1 and never done with it."""
    command = [sys.executable, "-c", OWNER, redis_server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
        process.kill()


async def test_what_a_killed_replica_had_in_hand_is_done_by_another(
    owner: subprocess.Popen[str], replica: Callable[..., Deduplicator], eventually: Any
) -> None:
    before = redeliveries("running")
    run = FakeRun(says="y")
    waiting = asyncio.create_task(replica().reply(run))
    await eventually(lambda: redeliveries("running") > before)
    assert run.runs == 0

    owner.send_signal(signal.SIGKILL)

    assert said(await asyncio.wait_for(waiting, 60)) == "y"
    assert run.runs == 1


# Without Redis


async def test_when_redis_dies_each_goes_by_its_own_memory_and_says_so_once(
    replica: Callable[..., Deduplicator], redis_server: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, gate = replica(lease_seconds=0.3), asyncio.Event()
    run = FakeRun("1", gate=gate)
    running = asyncio.create_task(ledger.reply(run))
    await eventually(lambda: run.runs)

    redis_server.kill()
    await eventually(lambda: caplog.records)
    gate.set()

    assert said(await running) == "x"
    assert said(await ledger.reply(FakeRun("1", "again"))) == "x"
    assert said(await ledger.reply(FakeRun("2"))) == "x"
    await ledger.cancel("job-3")
    assert said(await ledger.reply(FakeRun("3"))) == "cancelled"
    outages = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(outages) == 1
    assert "own memory" in outages[0].getMessage()


async def test_when_redis_is_back_it_is_used_again(
    replica: Callable[..., Deduplicator],
    redis_server: Any,
    leases: Callable[[], Any],
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "predictor.events.redis_reply_store")
    one, other, gate = replica(), replica(), asyncio.Event()
    first, second = FakeRun("1", gate=gate), FakeRun("1", "y")
    running = asyncio.create_task(one.reply(first))
    await eventually(lambda: first.runs)
    redis_server.kill()
    await eventually(lambda: caplog.records)

    redis_server.start()

    await eventually(lambda: "the store can be reached again" in caplog.messages)
    async with asyncio.timeout(60):
        while not await leases():  # the new Redis knew nothing of it
            await asyncio.sleep(0.01)
    waiting = asyncio.create_task(other.reply(second))
    gate.set()
    assert await waiting == await running
    assert second.runs == 0


async def test_a_redis_that_is_not_there_costs_the_second_request_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Deduplicator(RedisReplyStore("redis://127.0.0.1:1/0", "/poet"))
    assert said(await ledger.reply(FakeRun("1"))) == "x"

    with mock.patch("redis.asyncio.connection.Connection.connect", side_effect=AssertionError):
        assert said(await ledger.reply(FakeRun("2"))) == "x"

    assert len(caplog.records) == 1
    await ledger.close()


def test_what_only_few_deployments_need_is_imported_only_there() -> None:
    code = (
        "import sys, predictor.settings, predictor.events.progress, predictor.events.deduplication; "
        "print({'httpx', 'redis', 'fsspec'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
