"""Those who wait see how far their model is."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from contract import Job, StatusEvent, problems
from contract.cloudevents import PROGRESS, CloudEvent, GenerationProgress
from tests.support.waiting import eventually
from tests.support.waking import (
    ASYNC,
    LIMIT,
    LIVE,
    REQUEST,
    SILENCE_SECONDS,
    Events,
    Front,
    Model,
    Opened,
    Slug,
    break_connection,
    states,
    status,
    until_status,
)
from web.app import create_app
from web.jobs.service import JobService
from web.readiness.model_readiness import Readiness
from web.settings import Settings
from wire.cloudevents import write_event


async def test_each_phase_is_a_status_event(front: Front, model: Model, events: Events) -> None:
    client = await front(heartbeat_seconds=0.02)
    for expected in (False, True):
        waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
        for model.phase in ("reading", "warming up"):
            await until_status(client, state="waking", phase=model.phase)
        model.awake.set()
        answer = await waiting
        found = events(answer.text)
        assert states(found) == ["asleep", "waking", "waking", "queued", "running"]
        assert [data.get("phase") for _, data in found[:4]] == [None, "reading", "warming up", None]
        assert [("expected_seconds" in data) for _, data in found[:4]] == [expected] * 3 + [False]
        assert found[1][1]["seconds"] >= 0.2  # which the predictor said
        assert [name for name, _ in found[5:]] == ["token", "token", "result"]
        assert ": keep-alive" in answer.text
        for _, data in found[:5]:
            StatusEvent.model_validate(data)
        model.awake.clear()
        model.phase = "reading"
        if not expected:  # it falls asleep, which web finds out by a connection that breaks
            await break_connection(client, model)


async def test_silence_means_waking(front: Front, model: Model, events: Events) -> None:
    model.asleep = model.silent
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await until_status(client, state="waking")
    late = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await eventually(lambda: model.posts == 2)
    await asyncio.sleep(2 * SILENCE_SECONDS)
    model.awake.set()
    found = events((await waiting).text)
    assert states(found) == ["asleep", "waking", "queued", "running"]
    assert found[1][1]["seconds"] >= 0.1
    assert found[-1][0] == "result"
    assert states(events((await late).text)) == ["waking", "queued", "running"]


async def test_how_long_it_has_been_waking_is_repeated(
    front: Front, model: Model, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.readiness.waiting_statuses.REPEAT_SECONDS", 0.05)
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await until_status(client, state="waking")
    await asyncio.sleep(0.3)
    model.awake.set()
    told = [data["seconds"] for _, data in events((await waiting).text) if data.get("state") == "waking"]
    assert len(told) >= 2
    assert told == sorted(told)


@pytest.mark.parametrize("settings", [{}, {"idle_seconds": 0}], ids=["answered lately", "never sleeps"])
async def test_silence_of_a_model_that_is_awake_is_a_queue(
    front: Front, model: Model, events: Events, settings: dict[str, Any]
) -> None:
    model.awake.set()
    client = await front(**settings)
    if not settings:
        await client.post("/generate", json=REQUEST)
    model.held = asyncio.Event()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await eventually(lambda: model.in_flight)
    await asyncio.sleep(3 * SILENCE_SECONDS)
    model.held.set()
    assert states(events((await waiting).text)) == ["queued", "running"]
    assert model.questions == 0


async def test_silence_while_others_are_answered_is_a_queue(front: Front, model: Model, events: Events) -> None:
    model.asleep = model.begun
    client = await front(idle_seconds=0.01)
    answered = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="ready")
    model.awake.set()
    await asyncio.sleep(0.05)  # longer than the idle window
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await eventually(lambda: model.posts == 2)
    await asyncio.sleep(3 * SILENCE_SECONDS)
    assert model.held is not None
    model.held.set()
    assert states(events((await waiting).text)) == ["queued", "running"]
    warm = await client.post("/warm")
    assert (warm.status_code, warm.json()["state"], model.questions) == (200, "ready", 0)
    model.ended.set()
    assert (await answered).status_code == 200


async def test_an_error_after_waiting_is_sent_once(front: Front, model: Model, events: Events) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers={**LIVE, "X-Request-Timeout": "0.5"}))
    await until_status(client, state="waking")
    answer = await waiting
    found = events(answer.text)
    assert (answer.status_code, [name for name, _ in found]) == (200, ["status", "status", "error"])
    assert found[-1][1]["type"] == problems.LOADING.uri


# Jobs


async def test_a_job_shows_how_far_its_model_is(front: Front, model: Model, events: Events) -> None:
    client = await front(max_job_runs=1)
    keyed = asyncio.create_task(client.post("/generate", json=REQUEST, headers={**LIVE, "Idempotency-Key": "k"}))
    await eventually(lambda: model.posts)
    answers = [await client.post("/generate", json=REQUEST, headers=ASYNC) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {202}
    watching = [asyncio.create_task(client.get(answer.headers["location"], headers=LIVE)) for answer in answers]
    await until_status(client, state="waking", phase="reading")
    for answer in answers:  # although it is not yet their turn
        shown = await client.get(answer.headers["location"])
        job = Job.model_validate(shown.json())
        assert (job.state, job.waking and job.waking.phase) == ("queued", "reading")
        assert shown.headers["retry-after"] == "5"
    model.phase = "warming up"
    await until_status(client, phase="warming up")
    await asyncio.sleep(0.05)
    model.awake.set()
    assert states(events((await keyed).text))[:3] == ["queued", "asleep", "waking"]
    first, second = [(await watched).text for watched in watching]
    for position, text in enumerate((first, second), 1):  # also while the model is waking
        before = [data.get("position") for _, data in events(text) if data.get("state") in ("asleep", "waking")]
        assert set(before) == {position}
        assert events(text)[0][1]["position"] == position
        assert [state for state in states(events(text)) if state != "queued"] == ["waking", "waking", "running"]
        phases = [data["phase"] for _, data in events(text) if data.get("state") == "waking"]
        assert phases == ["reading", "warming up"]
        assert [name for name, _ in events(text)].count("result") == 1
    ended = (await client.get(answers[0].headers["location"])).json()
    assert (ended["state"], ended.get("waking")) == ("completed", None)
    # What it waited for is not part of what can be replayed.
    ids = [line for line in first.splitlines() if line.startswith("id: ")]
    assert len(ids) == len(["running", "春", "天", "result"])
    replayed = await client.get(answers[0].headers["location"], headers={**LIVE, "Last-Event-ID": ids[0][4:]})
    assert [name for name, _ in events(replayed.text)] == ["token", "token", "result"]


async def test_a_job_is_cancelled_while_its_model_is_waking(front: Front, model: Model, events: Events) -> None:
    model.asleep = model.silent
    client = await front()
    where = (await client.post("/generate", json=REQUEST, headers=ASYNC)).headers["location"]
    watching = asyncio.create_task(client.get(where, headers=LIVE))
    await until_status(client, state="waking")
    assert (await client.delete(where)).json()["state"] == "cancelled"
    assert events((await watching).text)[-1][1]["type"] == problems.CANCELLED.uri
    await eventually(lambda: model.in_flight == 1)  # the question
    model.awake.set()
    await until_status(client, state="ready")
    assert model.posts == 1


async def test_a_job_waits_until_its_deadline_whatever_is_expected(
    front: Front, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "expected_seconds", 20.0)
    monkeypatch.setattr(JobService, "_expected_seconds", lambda *_: 100.0)
    client = await front()
    headers = {**ASYNC, "X-Request-Timeout": "5"}
    where = (await client.post("/generate", json=REQUEST, headers=headers)).headers["location"]
    await until_status(client, state="waking")
    found = await client.get(where)
    assert found.headers["retry-after"] == "20"
    assert 110 < found.json()["expected_seconds"] <= 120
    model.awake.set()
    async with asyncio.timeout(LIMIT):
        while (job := (await client.get(where)).json())["state"] == "queued":
            await asyncio.sleep(0.01)
    assert job["state"] in ("running", "completed")


# The events backend


async def deliver(client: httpx2.AsyncClient, phase: str, name: str = "poet") -> None:
    data = GenerationProgress(model=name, state="loading", phase=phase, seconds=0.5)
    event = CloudEvent(id=phase, source="urn:test", type=PROGRESS).with_data(data)
    headers, body = write_event(event)
    assert (await client.post("/events", headers=headers, content=body)).status_code == 204


async def test_events_show_loading(opened: Opened, events: Events, slug: Slug) -> None:
    settings = Settings.model_validate(
        {"models": {"poet": {"kind": "text"}}, "dispatch": "events", "k_sink": "http://sink.test"}
    )
    client = await opened(create_app(settings, httpx2.MockTransport(lambda _: httpx2.Response(202))))
    where = (await client.post("/generate", json=REQUEST, headers=ASYNC)).headers["location"]
    watching = asyncio.create_task(client.get(where, headers=LIVE))
    await asyncio.sleep(0.05)
    for phase in ("reading", "warming up"):
        await deliver(client, phase)
        await until_status(client, state="waking", phase=phase)
        assert (await client.get(where)).json()["waking"]["phase"] == phase
    await deliver(client, "ready")
    assert (await status(client))["state"] == "ready"
    await deliver(client, "reading")  # late, or of one more predictor
    await deliver(client, "reading", name="somebody else's")
    assert (await status(client))["state"] == "ready"
    await client.delete(where)
    found = events((await watching).text)
    assert states(found)[0] in ("queued", "pending")  # in web's queue, or sent to the Broker already
    assert states(found)[1:4] == ["asleep", "waking", "waking"]
    await deliver(client, "failed")
    assert (await status(client))["state"] == "unknown"
    refused = await client.post("/warm")
    assert (refused.status_code, slug(refused)) == (501, "not-implemented")
