"""The store in memory is bounded, in bytes of everything that it keeps."""

from __future__ import annotations

import asyncio

import pytest

from contract import ProblemError, Webhook, problems
from tests.support.jobs import KEEP_SECONDS, added, entries_of, new_record, request_of
from web.jobs.stores.memory_store import MemoryStore

EMOJI = "🙂"
MANY = 10_000


def store_of(most_bytes: int, log_entries: int = 1_000) -> MemoryStore:
    return MemoryStore(KEEP_SECONDS, most_bytes, log_entries)


async def kept(store: MemoryStore, jobs: str) -> str:
    return "".join([job for job in jobs if await store.get(job)])


@pytest.mark.parametrize(("text", "jobs"), [("x", "abc"), (EMOJI, "c")], ids=["letters", "emoji"])
async def test_ended_jobs_are_forgotten_earlier_where_memory_is_full(text: str, jobs: str) -> None:
    """An emoji takes as many bytes as Python takes for it, which is eight with what it keeps of its UTF-8."""
    store = store_of(5 * MANY)
    for job in "abc":
        await added(store, job)
        await store.append(job, [("token", text * MANY)])
        await store.finish(job, "completed", "{}", 7)
    assert await kept(store, "abc") == jobs


@pytest.mark.parametrize("held", ["request", "headers", "log"])
async def test_what_jobs_that_have_not_ended_hold_counts(held: str) -> None:
    store = store_of(5 * MANY)
    for job in "ab":
        await added(store, job)
        await store.finish(job, "failed", '"' + 15_000 * "x" + '"', 7)
    size = dict.fromkeys(("request", "headers", "log"), 1) | {held: 12_000}
    await store.add(
        new_record("open", headers={"tracestate": "x" * size["headers"]}, request=request_of(size["request"]))
    )
    await store.append("open", [("token", "x" * size["log"])])
    await store.add(new_record("c", request=request_of(1)))
    await store.finish("c", "failed", "{}", 7)
    assert await kept(store, "abc") == "bc"


async def test_outcomes_count_once_though_the_log_ends_with_them() -> None:
    store = store_of(5 * MANY)
    for job in "abc":
        await added(store, job)
        await store.finish(job, "completed", "x" * MANY, 7)
    assert await kept(store, "abc") == "abc"


async def test_the_objects_around_the_texts_count() -> None:
    store = store_of(100_000)
    for job in range(1_000):
        await added(store, str(job))
        await store.finish(str(job), "failed", "{}", 7)
    assert 10 < sum([await store.get(str(job)) is not None for job in range(1_000)]) < 50


async def test_webhooks_count_with_all_the_attempts_that_may_come() -> None:
    store = store_of(100_000)
    for job in range(50):
        await store.add(new_record(str(job), webhook=Webhook(url="https://hooks.example.com/")))
        await store.finish(str(job), "failed", "{}", 7)
    assert 5 < sum([await store.get(str(job)) is not None for job in range(50)]) < 12
    assert len(await store.due.claim(8, 1, 50)) < 12


async def test_the_job_that_ended_last_is_kept_however_large_it_is() -> None:
    """Somebody is waiting for it."""
    store = store_of(100)
    for job in "ab":
        await added(store, job)
        waiting = asyncio.create_task(store.wait_for_end(job))
        await store.finish(job, "completed", "x" * 1_000, 7)
        await waiting
        assert await store.get(job) is not None
    assert await store.get("a") is None


async def test_a_log_drops_its_oldest_entries_where_memory_is_full_of_open_jobs() -> None:
    store = store_of(5 * MANY)
    await added(store, "a")
    for number in range(9):
        await store.append("a", [("token", f"{number}" + "x" * MANY)])
    await store.finish("a", "failed", "{}", 7)
    assert "".join([entry.data[0] for entry in await entries_of(store, "a")]) == "5678{"


async def test_requests_of_open_jobs_have_a_share_of_the_bytes() -> None:
    store = store_of(16 * MANY)
    for job in "abc":
        await store.add(new_record(job, request=request_of(MANY)))
    with pytest.raises(ProblemError) as refused:
        await store.add(new_record("d", request=request_of(MANY)))
    assert refused.value.kind is problems.OVERLOADED
    assert refused.value.headers["Retry-After"]
    assert "requests of queued and running generations" in str(refused.value)
    assert await store.add(new_record("a", request="another")) == await store.get("a")  # a known one is not refused
    await store.finish("b", "cancelled", "{}", 7)
    await store.add(new_record("d", request=request_of(MANY)))


async def test_a_request_larger_than_the_share_is_taken_where_there_is_no_other() -> None:
    store = store_of(100)
    await store.add(new_record("a", request=request_of(MANY)))
    with pytest.raises(ProblemError):
        await store.add(new_record("b", request=request_of(1)))
    await store.finish("a", "failed", "{}", 7)
    await store.add(new_record("b", request=request_of(MANY)))


async def test_an_ended_job_keeps_of_its_request_what_its_answers_need() -> None:
    store = store_of(100 * MANY)
    request = request_of(MANY, kind="image", n=3, format="webp", seed=7)
    await store.add(new_record("a", request=request))
    await store.finish("a", "completed", "{}", 7)
    record = await store.get("a")
    assert record is not None
    assert record.request == '{"prompt": "-", "n": 3, "format": "webp"}'


async def test_a_watcher_that_reads_slowly_does_not_keep_a_forgotten_job() -> None:
    store = store_of(1)
    await added(store, "a")
    await store.append("a", [("token", "1"), ("token", "2")])
    entries = store.watch("a")
    assert (await anext(entries)).data == "2"  # as memory is full
    await store.finish("a", "completed", "{}", 7)
    await added(store, "b")
    await store.finish("b", "completed", "{}", 7)
    assert await anext(entries, None) is None
