"""What is due to be delivered, in either store."""

from __future__ import annotations

from typing import Any

import redis

from contract import Webhook, WebhookDelivery
from tests.support.jobs import MakeStore, SharedStore, new_record
from web.jobs.due_list import DueDelivery
from web.jobs.record import JobRecord
from web.jobs.store import JobStore

HOOK = Webhook(url="https://hooks.example.com/")
FAR = 4e9


def hooked(job: str = "a", **changes: Any) -> JobRecord:
    return new_record(job, **{"webhook": HOOK, "deadline": FAR, **changes})


async def claims(store: JobStore, now: float, most: int = 9) -> list[DueDelivery]:
    return await store.due.claim(now, 10, most)


async def test_a_job_is_due_once_it_has_ended(store: JobStore) -> None:
    await store.add(hooked())
    await store.add(new_record("without"))
    assert (await store.get("a")) == hooked(created=(await store.get("a") or hooked()).created)
    assert await claims(store, FAR - 1) == []
    await store.finish("a", "completed", "{}", 100.5)
    await store.finish("without", "completed", "{}", 100.5)
    assert await claims(store, 100) == []
    assert await claims(store, 101) == [DueDelivery("a", 111)]


async def test_a_claim_is_a_lease(store: JobStore) -> None:
    await store.add(hooked())
    await store.finish("a", "failed", "{}", 100)
    [first] = await claims(store, 101)
    assert await claims(store, 110) == []
    [second] = await claims(store, 111)
    assert (first.job, second.job) == ("a", "a")
    await store.due.settle(first)  # it comes too late, and changes nothing
    await store.due.settle(first, 102)
    assert await claims(store, 120) == []
    await store.due.settle(second, 130)
    assert await claims(store, 129) == []
    [third] = await claims(store, 130.5)
    await store.due.settle(third)
    assert await claims(store, FAR) == []


async def test_what_is_due_longest_comes_first(store: JobStore) -> None:
    for job, at in (("a", 103), ("b", 101), ("c", 102)):
        await store.add(hooked(job))
        await store.finish(job, "cancelled", "{}", at)
    assert [claim.job for claim in await claims(store, 200, 2)] == ["b", "c"]
    assert [claim.job for claim in await claims(store, 200, 2)] == ["a"]


async def test_a_job_that_nobody_makes_due_is_due_at_its_deadline(store: JobStore) -> None:
    """As one that a replica ends which knows no webhooks."""
    await store.add(hooked())
    assert await claims(store, FAR - 1) == []
    [claim] = await claims(store, FAR)
    await store.finish("a", "failed", "{}", FAR + 1)
    await store.due.settle(claim)
    assert len(await claims(store, FAR + 1)) == 1  # at once, and not when the lease runs out


async def test_what_has_become_of_a_webhook(store: JobStore) -> None:
    record = await store.add(hooked())
    noted = Webhook(url=HOOK.url, deliveries=[WebhookDelivery(at="now", status=500)], delivered=False)
    await store.note_webhook(record, noted)
    found = await store.get("a")
    assert found is not None
    assert found.webhook == noted
    await store.note_webhook(hooked(created=1), HOOK)  # of another job with the same id
    assert await store.get("a") == found
    await store.note_webhook(hooked("gone"), noted)
    assert await store.get("gone") is None


async def test_a_job_that_is_forgotten_is_not_due(make: MakeStore) -> None:
    store = await make()
    record = await store.add(hooked())
    await store.finish("a", "completed", "{}", 100)
    await store.delete(record)
    for claim in await claims(store, 101):  # in Redis it is there until somebody looks at it
        assert await store.get(claim.job) is None
        await store.due.settle(claim)
    assert await claims(store, FAR) == []


async def test_a_full_redis_delivers_on(shared: SharedStore, redis_client: redis.Redis) -> None:
    store = await shared()
    record = await store.add(hooked())
    await store.finish("a", "completed", "{}", 100)
    redis_client.config_set("maxmemory", 1)
    try:
        [claim] = await claims(store, 101)
        await store.note_webhook(record, HOOK.model_copy(update={"delivered": True}))
        await store.due.settle(claim, 300)
        assert await claims(store, 200) == []
    finally:
        redis_client.config_set("maxmemory", 0)


async def test_an_old_replica_ignores_it(shared: SharedStore, redis_client: redis.Redis) -> None:
    """As commit bcaa36b ends jobs: it leaves the list alone."""
    store = await shared()
    record = await store.add(hooked())
    assert redis_client.zscore("shangcai:due", "a") == FAR
    assert redis_client.hget("shangcai:job:a", "webhook") == HOOK.model_dump_json()
    redis_client.hset("shangcai:job:a", mapping={"end": "completed", "ended": "150.0", "outcome": "{}"})
    [claim] = await claims(store, FAR)
    found = await store.get(claim.job)
    assert found is not None
    assert (found.end, found.webhook) == ("completed", HOOK)
    await store.add(new_record("old"))
    assert "webhook" not in redis_client.hgetall("shangcai:job:old")
    assert record.webhook == HOOK
