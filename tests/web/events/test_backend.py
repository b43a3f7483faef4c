"""Requests go out as events; the sink answers with the result, or takes them for later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

from contract.cloudevents import (
    CALLER,
    CANCELLED,
    EVENT_BYTES,
    EXPIRY,
    MODEL,
    REQUESTED,
    CloudEvent,
)
from tests.support.events import (
    ASYNC,
    LIMIT,
    App,
    Front,
    Serve,
    Sink,
    Slug,
    completed,
    deliver,
    ended,
    job_of,
    submit,
)
from tests.support.waiting import eventually
from web.events import backend
from web.jobs import worker
from wire.cloudevents import Mode, is_signed, write_event

PREDICTOR_TOKEN = "a-token-of-the-predictors"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_the_attributes_and_data_of_a_request(front: Front, sink: Sink) -> None:
    client = await front(k_ce_overrides='{"extensions": {"team": "poetry"}}', event_source="urn:me")
    job = await submit(client, {"traceparent": TRACE, "X-Request-Timeout": "60"}, max_tokens=5)
    [event] = await eventually(lambda: sink.events)
    assert (event.id, event.subject, event.source, event.type) == (job, job, "urn:me", REQUESTED)
    expiry = event.extensions.pop(EXPIRY)
    assert event.extensions == {"team": "poetry", "traceparent": TRACE, MODEL: "poet", CALLER: "default"}
    assert expiry == (await job_of(client, job))["deadline_at"]
    assert datetime.fromisoformat(expiry).tzinfo is not None
    request = json.loads(event.data or b"")
    assert request.pop("seed") >= 0
    assert request == {"prompt": "春", "max_tokens": 5, "model": "poet"}


async def test_a_request_goes_to_the_model_that_its_prompt_has_chosen(front: Front, sink: Sink) -> None:
    models = {"novelist": {}, "poet": {"match": "春"}}
    client = await front(models=models)
    job = await submit(client)
    [event] = await eventually(lambda: sink.events)
    assert (event.extensions[MODEL], json.loads(event.data or b"")["model"]) == ("poet", "poet")
    assert (await job_of(client, job))["model"] == "poet"


async def test_with_the_predictors_token_requests_and_cancellations_are_signed(front: Front, sink: Sink) -> None:
    client = await front(predictor_token=PREDICTOR_TOKEN)
    job = await submit(client)
    [request] = await eventually(lambda: sink.of(REQUESTED))
    assert is_signed(request, PREDICTOR_TOKEN)
    assert (await client.delete(f"/generations/{job}")).status_code == 200
    [cancellation] = await eventually(lambda: sink.of(CANCELLED))
    assert is_signed(cancellation, PREDICTOR_TOKEN)
    assert cancellation.extensions[CALLER] == request.extensions[CALLER] == "default"
    assert not is_signed(cancellation, f"{PREDICTOR_TOKEN}x")


async def test_a_mounted_token_is_sent_to_the_sink(front: Front, sink: Sink, tmp_path: Path) -> None:
    token = tmp_path / "token"
    client = await front(k_token=token)
    await submit(client)
    await eventually(lambda: len(sink.events) == 1)
    token.write_text("first\n")
    await submit(client)
    await eventually(lambda: len(sink.events) == 2)
    token.write_text("renewed\n")
    await submit(client)
    await eventually(lambda: len(sink.events) == 3)
    assert sink.authorizations == [None, "Bearer first", "Bearer renewed"]


async def test_a_job_waits_for_a_token_that_cannot_be_read(
    front: Front, sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "MOST_RETRY_SECONDS", 0.2)
    caplog.set_level("INFO", worker.log.name)
    token = tmp_path / "token"
    token.mkdir()
    sink.replies()
    client = await front(k_token=token)
    job = await submit(client)
    await eventually(lambda: f"job {job} waits" in caplog.text)
    token.rmdir()
    token.write_text("first\n")
    assert (await ended(client, job))["state"] == "completed"
    assert sink.authorizations == ["Bearer first"]


@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
async def test_a_reply_in_the_answer(front: Front, sink: Sink, mode: Mode) -> None:
    sink.replies(mode)
    answer = await (await front()).post("/generate", json={"prompt": "春"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春眠不觉晓")
    assert answer.headers["location"] == f"/generations/{answer.json()['id']}"


async def test_a_reply_that_comes_later(front: Front, sink: Sink) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json={"prompt": "春"}))
    [event] = await eventually(lambda: sink.events)
    assert (await deliver(client, completed(event), "structured")).status_code == 204
    assert (await waiting).json()["text"] == "春眠不觉晓"


async def test_events_name_their_caller(front: Front, sink: Sink) -> None:
    client = await front(callers="header", trusted_hops=["127.0.0.0/8"], callers_secret="a secret of the tests")
    client.headers["X-Forwarded-User"] = "alice"
    await submit(client)
    [event] = await eventually(lambda: sink.of(REQUESTED))
    assert event.extensions[CALLER] == "alice"


async def test_a_reply_that_comes_before_the_broker_has_answered(front: Front, sink: Sink) -> None:
    delivered = asyncio.Event()

    async def slow(_event: CloudEvent) -> httpx2.Response:
        await delivered.wait()
        return httpx2.Response(202)

    sink.answer = slow
    client = await front()
    job = await submit(client)
    [event] = await eventually(lambda: sink.events)
    await deliver(client, completed(event))
    assert (await job_of(client, job))["state"] == "completed"
    delivered.set()
    assert (await job_of(client, job))["state"] == "completed"
    assert len(sink.events) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        httpx2.Response(404),
        httpx2.Response(408),
        httpx2.Response(409),
        httpx2.Response(500),
        httpx2.Response(503, headers={"Retry-After": "1"}),
        httpx2.Response(429, headers={"Retry-After": "1"}),
    ],
    ids=lambda answer: str(answer.status_code),
)
async def test_a_transient_refusal_is_sent_again(
    front: Front, sink: Sink, refusal: httpx2.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(worker, "MOST_RETRY_SECONDS", 0.01)
    answers = [refusal, httpx2.Response(202)]

    async def answer(_event: CloudEvent) -> httpx2.Response:
        return answers.pop(0)

    sink.answer = answer
    client = await front()
    await submit(client)
    await eventually(lambda: len(sink.events) == 2)
    first, second = sink.events
    assert first.key == second.key, "so that nothing is generated twice"


async def test_a_final_refusal_ends_the_job(front: Front, sink: Sink) -> None:
    async def answer(_event: CloudEvent) -> httpx2.Response:
        return httpx2.Response(400, json={"error": "no such thing"})

    sink.answer = answer
    client = await front()
    document = await ended(client, await submit(client))
    assert document["state"] == "failed"
    assert "no such thing" in document["error"]["detail"]
    assert len(sink.events) == 1


async def test_a_sink_that_is_not_there_yet_is_asked_again(
    front: Front, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_RETRY_SECONDS", 0.01)

    async def absent(_event: CloudEvent) -> httpx2.Response:
        sink.replies()
        raise httpx2.ConnectError("nobody there")

    sink.answer = absent
    answer = await (await front()).post("/generate", json={"prompt": "春"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春眠不觉晓")
    assert len(sink.events) == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, headers={"Content-Type": "application/cloudevents+json"}, content=b"{"),
        httpx2.Response(200, headers={"Content-Type": "application/cloudevents+xml"}, content=b"<x/>"),
        httpx2.Response(200, headers={"ce-id": "1"}),
    ],
)
async def test_an_answer_that_is_no_event_is_not_the_clients_mistake(
    front: Front, sink: Sink, slug: Slug, answer: httpx2.Response
) -> None:
    async def garble(_event: CloudEvent) -> httpx2.Response:
        return answer

    sink.answer = garble
    refused = await (await front()).post("/generate", json={"prompt": "春"})
    assert (refused.status_code, slug(refused)) == (502, "bad-upstream")
    assert len(sink.events) == 1


async def test_an_answer_without_an_end_is_not_read_to_its_end(front: Front, sink: Sink, slug: Slug) -> None:
    async def endless(event: CloudEvent) -> httpx2.Response:
        async def content() -> AsyncGenerator[bytes]:
            while True:
                yield b" " * 1_000_000

        headers, _ = write_event(completed(event))
        return httpx2.Response(200, headers=headers, content=content())

    sink.answer = endless
    refused = await (await front()).post("/generate", json={"prompt": "春"})
    assert (refused.status_code, slug(refused)) == (502, "bad-upstream")


@pytest.mark.parametrize(
    "answer", [httpx2.Response(200, content=b"<html>"), httpx2.Response(204), httpx2.Response(202)]
)
async def test_an_answer_without_an_event_means_that_a_broker_has_it(
    front: Front, sink: Sink, answer: httpx2.Response
) -> None:
    async def take(_event: CloudEvent) -> httpx2.Response:
        return answer

    sink.answer = take
    client = await front()
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    document = await job_of(client, job)
    assert document["state"] == "queued"
    assert (await deliver(client, completed(request))).status_code == 204
    assert (await job_of(client, job))["state"] == "completed"


# Cancelling


async def test_a_client_that_leaves_cancels(app: App, serve: Serve, sink: Sink) -> None:
    url = await serve(app())
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        asking = asyncio.create_task(client.post("/generate", json={"prompt": "春"}))
        await eventually(lambda: sink.of(REQUESTED))
        asking.cancel()
        [event] = await eventually(lambda: sink.of(CANCELLED))
        [request] = sink.of(REQUESTED)
        assert event.subject == request.subject
        assert (await job_of(client, str(request.subject)))["state"] == "cancelled"
        assert (await deliver(client, completed(request))).status_code == 204
        assert (await job_of(client, str(request.subject)))["state"] == "cancelled", "only the first end counts"


@pytest.mark.parametrize("headers", [{"Accept": "text/event-stream"}, {"Accept": "text/event-stream", **ASYNC}])
async def test_a_client_that_leaves_its_events_cancels_unless_it_said_otherwise(
    app: App, serve: Serve, sink: Sink, headers: dict[str, str]
) -> None:
    url = await serve(app())
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        async with client.stream("POST", "/generate", json={"prompt": "春"}, headers=headers) as answer:
            where = answer.headers["location"]
            await eventually(lambda: sink.of(REQUESTED))
        if "Prefer" in headers:
            await deliver(client, completed(sink.events[0]))
            assert (await client.get(where)).json()["state"] == "completed"
            assert sink.of(CANCELLED) == []
        else:
            await eventually(lambda: sink.of(CANCELLED))
            assert (await client.get(where)).json()["state"] == "cancelled"


async def test_deleting_sends_a_cancellation(front: Front, sink: Sink) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.of(REQUESTED))
    assert (await client.delete(f"/generations/{job}")).json()["state"] == "cancelled"
    assert (await client.delete(f"/generations/{job}")).status_code == 204
    assert [event.subject for event in sink.of(CANCELLED)] == [job]


async def test_cancelling_does_not_wait_for_a_sink_that_is_busy(front: Front, sink: Sink) -> None:
    """A direct sink answers with the result: it is hung up on, and found besides."""
    hung_up = asyncio.Event()

    async def work(event: CloudEvent) -> httpx2.Response:
        if event.type == CANCELLED:
            return httpx2.Response(204)
        try:
            await asyncio.Event().wait()
        finally:
            hung_up.set()
        raise AssertionError

    sink.answer = work
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.of(REQUESTED))
    assert (await client.delete(f"/generations/{job}")).json()["state"] == "cancelled"
    await asyncio.wait_for(hung_up.wait(), LIMIT)
    assert len(sink.of(CANCELLED)) == 1


async def test_an_event_carries_a_small_picture_and_a_larger_one_is_refused(front: Front, sink: Sink) -> None:
    """Brokers take no event of megabytes, and a dead letter would come too late."""
    client = await front()
    small, large = "/9j/" + "A" * 40, "/9j/" + "A" * EVENT_BYTES
    refused = await client.post("/generate", json={"prompt": "a cat", "kind": "image", "image": large})
    assert refused.status_code == 400
    [error] = refused.json()["errors"]
    assert (error["field"], f"at most {EVENT_BYTES} bytes" in error["detail"]) == ("image", True)
    assert sink.events == []
    await submit(client, kind="image", image=small)
    [event] = await eventually(lambda: sink.events)
    assert json.loads(event.data or b"")["image"] == small
