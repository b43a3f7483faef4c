"""The events of a job: from the beginning, after the last one seen, and up to the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import httpx2
import pytest

from contract import ProblemError, problems
from tests.support.waiting import eventually
from tests.support.web.job_requests import (
    ASYNC,
    CAT,
    LIMIT,
    LIVE,
    REQUEST,
    Front,
    Poet,
    ended,
    in_state,
    read,
    submit,
    watched,
)
from tests.support.web.samples import Sample
from web import app as web_app
from web.api import job_stream
from web.jobs.record import BEGINNING, LogEntry
from web.jobs.stores import memory_queue
from web.jobs.stores.memory_store import MemoryStore

Slug = Callable[[httpx2.Response], str]


async def test_a_job_can_be_watched_from_its_beginning_at_any_time(front: Front, poet: Poet) -> None:
    poet.finish.set()
    client = await front()
    location = await submit(client)
    result = (await ended(client, location))["result"]
    found = await watched(client, location)
    assert [(name, data) for _, name, data in found] == [
        ("status", {"state": "queued"}),
        ("status", {"state": "running"}),
        ("token", {"text": "春"}),
        ("token", {"text": "天"}),
        ("result", result),
    ]
    ids = [event_id for event_id, _, _ in found[1:]]
    assert None not in ids
    assert len(set(ids)) == 4
    assert await watched(client, location) == found
    for index, event_id in enumerate(ids[:-1]):
        assert await watched(client, location, event_id) == found[2 + index :]


async def test_a_client_that_has_seen_the_end_gets_a_204(front: Front, poet: Poet) -> None:
    """An EventSource connects again after every end, unless the answer is a 204."""
    poet.finish.set()
    client = await front()
    location = await submit(client)
    await ended(client, location)
    last, name, _ = (await watched(client, location))[-1]
    assert name == "result"
    answer = await client.get(location, headers={**LIVE, "Last-Event-ID": last or ""})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_events_are_sent_as_they_come_and_replayed_after_last_event_id(front: Front, poet: Poet) -> None:
    client = await front(sockets=True)
    location = await submit(client)

    async def first_token(text: AsyncGenerator[str]) -> str:
        block = ""
        async for piece in text:
            block += piece
            if '{"text":"春"}' in block:
                return [line.removeprefix("id: ") for line in block.splitlines() if line.startswith("id: ")][-1]
        raise AssertionError(block)

    async with asyncio.timeout(LIMIT), client.stream("GET", location, headers=LIVE) as answer:
        seen = await first_token(answer.aiter_text())  # type: ignore[arg-type]
    again = asyncio.create_task(watched(client, location, seen))
    await asyncio.sleep(0.05)
    assert not again.done()
    poet.finish.set()
    assert [name for _, name, _ in await again] == ["token", "result"]
    assert (await client.get(location)).json()["state"] == "completed"  # leaving has not cancelled it


@pytest.mark.parametrize("given", ["", "x", "1", "1-", "-1", "1-2-3", "9" * 21 + "-1", "1 - 1"])
async def test_an_invalid_last_event_id_is_refused(front: Front, slug: Slug, given: str) -> None:
    client = await front()
    headers = {**LIVE, "Last-Event-ID": given}
    for answer in (
        await client.get(await submit(client), headers=headers),
        await client.get(await submit(client), headers={"Last-Event-ID": given}),
        await client.post("/generate", json=REQUEST, headers={**ASYNC, **headers}),
    ):
        assert (answer.status_code, slug(answer)) == (400, "invalid-field")
        assert [error["field"] for error in answer.json()["errors"]] == ["Last-Event-ID"]


async def test_an_unknown_last_event_id_gets_the_end(front: Front, poet: Poet) -> None:
    client = await front()
    watching = asyncio.create_task(watched(client, await submit(client), "99999999999999-0"))
    await asyncio.sleep(0.05)
    poet.finish.set()
    [(_, name, data)] = await watching
    assert (name, data["kind"]) == ("result", "text")


async def test_previews_and_steps_can_be_watched(front: Front) -> None:
    client = await front()
    location = await submit(client, {**CAT, "previews": 1})
    names = [name for _, name, _ in await watched(client, location)]
    assert names == ["status", "status", "progress", "preview", "progress", "result"]


async def test_heartbeats_fill_a_silence(front: Front) -> None:
    client = await front(sockets=True, heartbeat_seconds=0.02)
    location = await submit(client)
    async with asyncio.timeout(LIMIT), client.stream("GET", location, headers=LIVE) as answer:
        async for line in answer.aiter_lines():
            if line.startswith(": "):
                break


async def test_a_stream_with_a_key_outlives_its_connection(front: Front, poet: Poet) -> None:
    client = await front(sockets=True)
    headers = {**LIVE, "Idempotency-Key": "k"}
    async with asyncio.timeout(LIMIT), client.stream("POST", "/generate", json=REQUEST, headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        location = answer.headers["location"]
        last = None
        async for line in answer.aiter_lines():
            last = line.removeprefix("id: ") if line.startswith("id: ") else last
            if "春" in line:
                break
    assert last is not None
    again = asyncio.create_task(client.post("/generate", json=REQUEST, headers={**headers, "Last-Event-ID": last}))
    await asyncio.sleep(0.05)
    poet.finish.set()
    assert [name for _, name, _ in read((await again).text)] == ["token", "result"]
    assert (await again).headers["location"] == location
    assert len(poet.asked) == 1


class LostStore(MemoryStore):
    """Cannot be reached any more, once, when a watcher has seen two entries."""

    seen = 0

    async def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        async for entry in super().watch(job, after):
            yield entry
            self.seen += 1
            if self.seen == 2:
                raise ProblemError(problems.UNAVAILABLE, "The store cannot be reached.", retry_after=5)


@pytest.fixture
def lost_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_app, "_store", lambda *_: LostStore(60, 1_000_000, 1_000))


async def test_an_outage_of_the_store_closes_a_stream_that_can_be_resumed(
    front: Front, poet: Poet, lost_store: None
) -> None:
    """`error` is the end that is stored, and no other: the job goes on."""
    poet.finish.set()
    client = await front()
    location = await submit(client)
    await ended(client, location)
    found = await watched(client, location)
    assert [name for _, name, _ in found] == ["status", "status", "token"]
    assert [name for _, name, _ in await watched(client, location, found[-1][0])] == ["token", "result"]


async def test_head_of_a_stream_is_answered_at_once(front: Front) -> None:
    client = await front(sockets=True)
    location = await submit(client)  # which does not end
    answer = await client.head(location, headers=LIVE)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (await client.get(location)).status_code == 200  # on the same connection: that answer has ended


async def test_a_stream_tells_how_the_place_of_a_job_changes(
    front: Front, poet: Poet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_stream, "PLACE_SECONDS", 0.02)
    monkeypatch.setattr(memory_queue, "PLACE_SECONDS", 0)
    client = await front(sockets=True, max_job_runs=1)
    first, second, third = [await submit(client) for _ in range(3)]
    await in_state(client, first, "running")
    found: list[object] = []
    async with asyncio.timeout(LIMIT), client.stream("GET", third, headers=LIVE) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if len(found) == 1:
                    await client.delete(second)
                if len(found) == 2:
                    break
    assert found == [{"state": "queued", "position": 2}, {"state": "queued", "position": 1}]
    poet.finish.set()


async def test_those_who_watch_are_counted_until_they_leave(front: Front, poet: Poet) -> None:
    watchers, before = Sample("watchers"), Sample("watchers").value
    client = await front(sockets=True)
    location = await submit(client)
    staying = asyncio.create_task(watched(client, location))
    async with asyncio.timeout(LIMIT), client.stream("GET", location, headers=LIVE):
        await eventually(lambda: watchers.value == before + 2, "both watch")
    await eventually(lambda: watchers.value == before + 1, "one has left")
    poet.finish.set()
    await staying
    await eventually(lambda: watchers.value == before, "the other has seen the end")
