"""`POST /events`: which requests, types and sources are accepted."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from contract import INSTANCES, ProblemError, problems
from contract.cloudevents import (
    ACCEPTED,
    BATCH_BYTES,
    CANCELLED,
    COMPLETED,
    ERROR_CODE,
    EVENT_BYTES,
    FAILED,
    PROGRESS,
    REQUESTED,
    CloudEvent,
)
from tests.support.events import (
    Front,
    Sink,
    Slug,
    about,
    completed,
    deliver,
    job_of,
    submit,
)
from tests.support.waiting import eventually
from web.events.replies import ReplyReceiver
from web.jobs.stores.memory_store import MemoryStore
from wire.cloudevents import BATCHED, write_batch, write_event


class Word(BaseModel):
    """Some data."""

    text: str


@pytest.mark.parametrize("kind", [COMPLETED, FAILED, PROGRESS, ACCEPTED, CANCELLED, REQUESTED])
async def test_events_about_unknown_jobs_are_accepted(front: Front, kind: str) -> None:
    """Other producers' requests are answered on the same broker."""
    client = await front()
    for job in ("unknown", None):
        assert (await deliver(client, about(job, kind))).status_code == 204


@pytest.mark.parametrize(
    ("headers", "content", "name"),
    [
        ({}, b"{}", "malformed-event"),
        ({"Content-Type": "application/json"}, b'{"prompt": "x"}', "malformed-event"),
        ({"ce-specversion": "1.0"}, b"", "malformed-event"),
        ({"Content-Type": "application/cloudevents+json"}, b"{", "malformed-event"),
        ({"Content-Type": "application/cloudevents+xml"}, b"<x/>", "unsupported-media-type"),
        (write_event(about("x", "com.example.other"))[0], b"", "malformed-event"),
        (write_event(about("x", COMPLETED))[0] | {"ce-subject": "%zz"}, b"", "malformed-event"),
        (write_event(about("x", COMPLETED))[0] | {"ce-specversion": "2.0"}, b"", "malformed-event"),
        ({}, b" " * 10_485_760, "body-too-large"),
    ],
)
async def test_requests_that_are_no_event_of_ours_are_refused(
    front: Front, slug: Slug, headers: dict[str, str], content: bytes, name: str
) -> None:
    assert slug(await (await front()).post("/events", headers=headers, content=content)) == name


async def test_only_named_sources_are_accepted(front: Front, slug: Slug) -> None:
    client = await front(events_sources=["urn:shangcai:model:poet"])
    assert slug(await deliver(client, about("x", COMPLETED))) == "forbidden"
    ours = about("x", COMPLETED).model_copy(update={"source": "urn:shangcai:model:poet"})
    assert (await deliver(client, ours)).status_code == 204


async def test_dead_letters_of_ours_are_accepted_whatever_the_sources(front: Front, sink: Sink) -> None:
    client = await front(events_sources=["urn:shangcai:model:poet"])
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    dead = request.model_copy(update={"extensions": request.extensions | {ERROR_CODE: "500"}})
    assert (await deliver(client, dead)).status_code == 204
    assert (await job_of(client, job))["state"] == "failed"


async def test_a_forged_reply_is_refused_and_the_job_goes_on(front: Front, sink: Sink, slug: Slug) -> None:
    client = await front(events_secret="a secret of the tests")
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    assert slug(await deliver(client, completed(request))) == "unauthorized"
    assert (await job_of(client, job))["state"] == "queued"


async def running(client: httpx2.AsyncClient, sink: Sink, jobs: int) -> list[CloudEvent]:
    """The requests of so many new jobs."""
    for _ in range(jobs):
        await submit(client)
    return await eventually(lambda: sink.events if len(sink.events) == jobs else None) or []


async def states(client: httpx2.AsyncClient, requests: list[CloudEvent]) -> list[str]:
    return [(await job_of(client, request.subject or ""))["state"] for request in requests]


async def test_of_a_batch_all_are_taken_but_the_bad_ones_which_are_named(front: Front, sink: Sink, slug: Slug) -> None:
    client = await front()
    requests = await running(client, sink, 3)
    good = [json.loads(write_event(completed(request), "structured")[1]) for request in requests]
    strange = json.loads(write_event(about("x", "com.example.other"), "structured")[1])
    batch = [strange, good[0], {"id": "no event"}, good[1], 7, good[2]]
    answer = await client.post("/events", headers={"Content-Type": BATCHED}, json=batch)
    assert (answer.status_code, slug(answer)) == (400, "malformed-event")  # which Knative does not send again
    detail = answer.json()["detail"]
    assert detail.startswith("3 of 6 events were refused, and the others taken: 0.type: must be one of ")
    assert "; 2.specversion: is required; " in detail
    assert "4: must be a JSON object" in detail
    assert await states(client, requests) == ["completed"] * 3


async def test_a_batch_comes_again_where_one_of_it_could_not_be_written(
    front: Front, sink: Sink, slug: Slug, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await front()
    requests = await running(client, sink, 3)
    finish, outages = MemoryStore.finish, [requests[1].subject]

    async def lose(self: MemoryStore, job: str, *arguments: Any) -> bool:
        if job in outages:
            outages.remove(job)
            raise ProblemError(problems.UNAVAILABLE, "The store cannot be reached.", retry_after=5)
        return await finish(self, job, *arguments)

    monkeypatch.setattr(MemoryStore, "finish", lose)
    headers, body = write_batch([about("x", "com.example.other"), *map(completed, requests)])
    answer = await client.post("/events", headers=headers, content=body)
    assert (answer.status_code, slug(answer)) == (503, "unavailable")  # though another one is bad for ever
    assert await states(client, requests) == ["completed", "queued", "completed"]
    assert (await client.post("/events", headers=headers, content=body)).status_code == 400
    assert await states(client, requests) == ["completed"] * 3


async def test_a_mistake_with_one_event_costs_the_others_nothing(
    front: Front, sink: Sink, slug: Slug, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await front()
    requests = await running(client, sink, 2)
    receive = ReplyReceiver.receive

    async def fail(self: ReplyReceiver, event: CloudEvent, journal: Any) -> None:
        if event.subject == requests[0].subject:
            raise KeyError("a mistake")
        await receive(self, event, journal)

    monkeypatch.setattr(ReplyReceiver, "receive", fail)
    headers, body = write_batch(map(completed, requests))
    answer = await client.post("/events", headers=headers, content=body)
    assert (answer.status_code, slug(answer)) == (500, "internal")
    assert (await job_of(client, requests[1].subject or ""))["state"] == "completed"


async def test_the_largest_batch_is_taken(front: Front, slug: Slug) -> None:
    client = await front()

    def batch(size: int) -> tuple[dict[str, str], bytes]:
        empty = len(write_event(about(str(0), COMPLETED).with_data(Word(text="")), "structured")[1])
        return write_batch([about("0", COMPLETED).with_data(Word(text="x" * (size - empty)))] * INSTANCES)

    headers, body = batch(EVENT_BYTES)
    assert len(body) == BATCH_BYTES
    assert (await client.post("/events", headers=headers, content=body)).status_code == 204
    headers, body = batch(EVENT_BYTES + 1)
    assert slug(await client.post("/events", headers=headers, content=body)) == "body-too-large"


async def test_no_address_is_made_up_from_the_host(front: Front) -> None:
    answer = await (await front()).post("/generate/", json={"prompt": "x"}, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers
