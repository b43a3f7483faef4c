"""`POST /events`: which requests, types and sources are accepted."""

from __future__ import annotations

import pytest

from contract.cloudevents import (
    ACCEPTED,
    CANCELLED,
    COMPLETED,
    ERROR_CODE,
    FAILED,
    PROGRESS,
    REQUESTED,
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
from wire.cloudevents import write_batch, write_event


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


async def test_of_a_batch_the_wrong_one_is_named(front: Front) -> None:
    headers, body = write_batch([about("x", COMPLETED), about("x", "com.example.other")])
    answer = await (await front()).post("/events", headers=headers, content=body)
    assert answer.json()["detail"].startswith("1.type: ")


async def test_no_address_is_made_up_from_the_host(front: Front) -> None:
    answer = await (await front()).post("/generate/", json={"prompt": "x"}, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers
