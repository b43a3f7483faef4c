"""The ends of jobs are delivered, at least once, from either store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from contract import ProblemError, Webhook, problems
from tests.support.jobs import KEEP_SECONDS, new_record, result
from tests.support.waiting import SECONDS, eventually
from tests.support.web.samples import Sample
from tests.support.web.webhook_receiver import OTHER_SECRET, SECRET, Answer, Receiver, answer, hang_up, silence
from web.callers.key_file import KeyFile
from web.jobs.background_loops import BackgroundLoops
from web.jobs.record import JobRecord
from web.jobs.results import Results
from web.jobs.store import JobStore
from web.jobs.stores.memory_store import MemoryStore
from web.jobs.stores.redis_store import RedisStore
from web.settings import Settings
from web.webhooks import deliveries as module
from web.webhooks.deliveries import MOST_PER_HOST, WebhookDeliveries
from web.webhooks.policy import WebhookPolicy

Receive = Callable[..., Awaitable[Receiver]]
Deliver = Callable[..., Awaitable[WebhookDeliveries]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncGenerator[JobStore]:
    made: JobStore = MemoryStore(KEEP_SECONDS, 1_000_000, 1_000)
    if request.param == "redis":
        made = RedisStore(request.getfixturevalue("redis_url"), KEEP_SECONDS, 1_000, 5)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def deliver(store: JobStore) -> AsyncGenerator[Deliver]:
    """Starts a replica's deliveries to these receivers."""
    opened: list[WebhookDeliveries] = []

    async def start(*receivers: Receiver, key_file: KeyFile | None = None, **settings: Any) -> WebhookDeliveries:
        fixed = {
            "models": {"poet": "http://poet.test"},
            "webhook_secret": SECRET,
            "webhook_seconds": SECONDS,
            "webhook_retry_seconds": 0.05,
        }
        known = Settings(webhook_hosts=[each.host for each in receivers], **{**fixed, **settings})
        policy = WebhookPolicy(known, key_file)
        opened.append(WebhookDeliveries(known, store, Results(None), policy, BackgroundLoops()))
        opened[-1].open()
        return opened[-1]

    yield start
    for each in opened:
        await each.close()


async def ended(
    store: JobStore, receiver: Receiver, job: str = "a", url: str | None = None, **changes: Any
) -> JobRecord:
    """A job that has ended."""
    record = await store.add(new_record(job, webhook=Webhook(url=url or receiver.url), **changes))
    await store.finish(job, "completed", result(record).model_dump_json(), await store.now())
    return record


async def webhook_of(store: JobStore, job: str = "a") -> Webhook:
    record = await store.get(job)
    assert record is not None
    assert record.webhook is not None
    return record.webhook


async def tried(store: JobStore, times: int, job: str = "a") -> Webhook:
    async def noted() -> bool:
        return len((await webhook_of(store, job)).deliveries) >= times

    await eventually(noted, f"{times} attempts are noted")
    return await webhook_of(store, job)


async def nothing_is_due(store: JobStore) -> None:
    """Nothing is left to be delivered, however long one waits."""

    async def empty() -> bool:
        found = await store.due.claim(4e9, 0, 1)
        for claim in found:
            await store.due.settle(claim, 0)  # at once
        return not found

    await eventually(empty, "nothing is due")


async def test_an_end_is_delivered_once(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver()
    await deliver(there)
    await deliver(there)  # another replica
    await ended(store, there)
    [received] = await there.has_received(1)
    event = received.verified()
    assert (event["subject"], event["type"]) == ("a", "ai.shangcai.generation.completed.v1")
    assert event["data"]["text"] == "春天"
    assert received.headers["content-type"] == "application/cloudevents+json"
    assert received.headers["webhook-id"] == event["id"]
    webhook = await tried(store, 1)
    assert webhook.delivered
    assert [each.status for each in webhook.deliveries] == [204]
    await nothing_is_due(store)
    assert len(there.received) == 1


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_other_ends_are_delivered(store: JobStore, deliver: Deliver, receiver: Receive, end: Any) -> None:
    there = await receiver()
    await deliver(there)
    await store.add(new_record(webhook=Webhook(url=there.url)))
    problem = ProblemError(problems.CANCELLED, "Because.").problem.model_dump_json(exclude_none=True)
    await store.finish("a", end, problem, await store.now())
    [received] = await there.has_received(1)
    assert received.verified()["type"] == f"ai.shangcai.generation.{end}.v1"


async def test_it_is_tried_again_with_the_same_id(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver(answer(500), answer(302, Location="http://127.0.0.1/"), hang_up, answer(429), answer(200))
    await deliver(there)
    await ended(store, there)
    received = await there.has_received(5)
    assert len({each.headers["webhook-id"] for each in received}) == 1
    assert len({each.body for each in received}) == 1
    for each in received:
        each.verified()
    webhook = await tried(store, 5)
    assert webhook.delivered
    found = [(each.status, each.error) for each in webhook.deliveries]
    redirect = (302, "redirects are not followed")
    assert found == [(500, None), redirect, (None, "the connection broke"), (429, None), (200, None)]


async def test_attempts_have_a_limit(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver(answer(500))
    await deliver(there, webhook_attempts=3)
    await ended(store, there)
    webhook = await tried(store, 3)
    await nothing_is_due(store)
    assert len(there.received) == len(webhook.deliveries) == 3
    assert not webhook.delivered


async def test_gone_ends_it(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver(answer(410))
    await deliver(there)
    await ended(store, there)
    webhook = await tried(store, 1)
    await nothing_is_due(store)
    assert len(there.received) == 1
    assert not webhook.delivered


async def test_waits_grow(
    store: JobStore, deliver: Deliver, receiver: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []
    there = await receiver(answer(500))
    settle, time = store.due.settle, await store.now()

    async def now() -> float:
        return time

    async def note(delivery: Any, again: float | None = None) -> None:
        if again is not None:
            waits.append(again - time)
        await settle(delivery, None if again is None else time)

    monkeypatch.setattr(store, "now", now)
    monkeypatch.setattr(store.due, "settle", note)
    await deliver(there, webhook_attempts=9, webhook_retry_seconds=5)
    await ended(store, there)
    await tried(store, 9)
    assert len(waits) == 8
    for wait, expected in zip(waits, [5, 10, 20, 40, 80, 160, 300, 300], strict=True):
        assert 0.7 * expected < wait < 1.3 * expected


async def test_a_slow_receiver_holds_up_nobody_else(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    slow, there = await receiver(silence), await receiver()
    await deliver(slow, there)
    for number in range(3 * MOST_PER_HOST):
        await ended(store, slow, f"slow {number}", url=f"http://{slow.host}?{number}")  # it is one host all the same
    await slow.has_received(MOST_PER_HOST)
    await ended(store, there)
    [received] = await there.has_received(1)
    assert received.event["subject"] == "a"
    assert slow.most_at_once == MOST_PER_HOST


async def test_no_more_than_so_many_at_once(
    store: JobStore, deliver: Deliver, receiver: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    answered = asyncio.Event()
    running: list[int] = []

    async def slow(writer: asyncio.StreamWriter) -> None:
        running.append(running[-1] + 1 if running else 1)
        await answered.wait()
        running.append(running[-1] - 1)
        await answer(204)(writer)

    receivers = [await receiver(slow) for _ in range(3)]
    for number, each in enumerate(receivers):
        await ended(store, each, str(number))
    await deliver(*receivers)
    await eventually(lambda: running == [1, 2], "two attempts")
    [left] = await store.due.claim(await store.now(), 0, 9)
    assert left.job not in {each.received[0].event["subject"] for each in receivers if each.received}
    answered.set()
    for each in receivers:
        await each.has_received(1)
    assert max(running) == 2


async def test_a_receiver_that_is_silent_is_tried_again(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver(silence)
    await deliver(there, webhook_seconds=0.2, webhook_attempts=2)
    await ended(store, there)
    assert [each.error for each in (await tried(store, 2)).deliveries] == ["no answer within 0.2 s"] * 2


async def test_many_to_one_host_are_all_delivered(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver()
    await deliver(there)
    for number in range(40):
        await ended(store, there, str(number))
    received = await there.has_received(40)
    assert {each.event["subject"] for each in received} == {str(number) for number in range(40)}
    await nothing_is_due(store)


async def test_what_a_dead_replica_has_claimed_is_delivered(
    store: JobStore, deliver: Deliver, receiver: Receive
) -> None:
    there = await receiver()
    await ended(store, there)
    now = await store.now()
    assert len(await store.due.claim(now, 0.3, 9)) == 1
    await deliver(there)
    await there.has_received(1)
    assert await store.now() >= now + 0.3


async def test_a_replica_that_leaves_gives_its_claims_up(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver(silence, answer(204))
    leaving = await deliver(there)
    await ended(store, there)
    await there.has_received(1)
    await leaving.close()
    await deliver(there)
    first, second = await there.has_received(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_a_job_that_is_forgotten_is_not_delivered(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver()
    record = await ended(store, there)
    await store.delete(record)
    await deliver(there)
    await nothing_is_due(store)
    assert there.received == []


async def test_one_end_that_cannot_be_written_keeps_no_other(
    store: JobStore, deliver: Deliver, receiver: Receive
) -> None:
    there = await receiver()
    await store.add(new_record("bad", webhook=Webhook(url=there.url)))
    await store.finish("bad", "completed", '{"no": "result"}', await store.now())
    await ended(store, there)
    await deliver(there)
    [received] = await there.has_received(1)
    assert received.event["subject"] == "a"


async def test_an_outage_of_the_store_loses_nothing(
    store: JobStore, deliver: Deliver, receiver: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3 - SECONDS)  # claims end soon, and attempts have time
    there = await receiver()
    note, failures = store.note_webhook, [1]

    async def fail_once(record: JobRecord, webhook: Webhook) -> None:
        if failures:
            failures.pop()
            raise ProblemError(problems.UNAVAILABLE, "Away.", retry_after=1)
        await note(record, webhook)

    monkeypatch.setattr(store, "note_webhook", fail_once)
    await deliver(there)
    await ended(store, there)
    first, second = (await there.has_received(2))[:2]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert (await tried(store, 1)).delivered


async def test_each_caller_signs_with_its_own(
    store: JobStore, deliver: Deliver, receiver: Receive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "callers"
    path.write_text(f"ann webhook_secret={SECRET}\nbob webhook_secret={OTHER_SECRET}\n")
    there = await receiver()
    await deliver(there, key_file=KeyFile(path), callers="keys", callers_file=path)
    for caller in ("nobody", "ann", "bob"):
        await ended(store, there, caller, caller=caller)
    received = {each.event["caller"]: each for each in await there.has_received(2)}
    received["ann"].verified(SECRET)
    received["bob"].verified(OTHER_SECRET)
    await eventually(lambda: "nothing to sign its webhook with" in caplog.text, "it is said")
    assert len(there.received) == 2


async def test_a_large_result_is_read_at_its_job(store: JobStore, deliver: Deliver, receiver: Receive) -> None:
    there = await receiver()
    await deliver(there)
    record = await store.add(new_record(webhook=Webhook(url=there.url)))
    large = json.loads(result(record).model_dump_json()) | {"text": "x" * 300_000}
    await store.finish("a", "completed", json.dumps(large), await store.now())
    [received] = await there.has_received(1)
    assert received.verified()["dataref"] == "/generations/a"
    assert len(received.body) < 1_000


async def test_without_hosts_nothing_runs(store: JobStore, deliver: Deliver) -> None:
    deliveries = await deliver()
    await asyncio.sleep(0)
    await deliveries.close()
    await nothing_is_due(store)


@pytest.mark.parametrize(
    ("answers", "attempts", "outcomes"),
    [
        ([answer(204)], 1, {"delivered": 1}),
        ([answer(500), hang_up, answer(200)], 3, {"failed": 2, "delivered": 1}),
        ([answer(500)], 3, {"failed": 2, "given_up": 1}),
        ([answer(410)], 1, {"given_up": 1}),
    ],
)
async def test_attempts_are_counted_by_what_has_become_of_them(
    store: JobStore,
    deliver: Deliver,
    receiver: Receive,
    answers: list[Answer],
    attempts: int,
    outcomes: dict[str, int],
) -> None:
    names = ("delivered", "failed", "given_up")
    counted = {name: Sample("webhook_deliveries_total", outcome=name) for name in names}
    timed = Sample("webhook_seconds_count")
    there = await receiver(*answers)
    await deliver(there, webhook_attempts=3)
    await ended(store, there)
    await tried(store, attempts)
    await nothing_is_due(store)
    assert {name: sample.grown for name, sample in counted.items() if sample.grown} == outcomes
    assert timed.grown == attempts
