"""`POST /warm` wakes a model; `GET /status` shows the states and asks nobody."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract import ModelStatus
from tests.support.waiting import eventually
from tests.support.waking import (
    LIMIT,
    LIVE,
    REQUEST,
    Events,
    Front,
    Model,
    Slug,
    states,
    status,
    until_status,
    wake_up,
)
from web.readiness import probe as probe_module
from web.readiness.model_readiness import Readiness
from web.readiness.probe import ReadinessProbe
from web.readiness.states_file import StatesFile
from web.settings import Settings

CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}


async def test_warming_wakes_and_generates_nothing(front: Front, model: Model) -> None:
    client = await front()
    answers = await asyncio.gather(*(client.post("/warm") for _ in range(20)))
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "5")
        assert ModelStatus.model_validate(answer.json()).state == "waking"
        assert (answer.json()["name"], answer.json()["phase"]) == ("poet", "reading")
    model.awake.set()
    await until_status(client, state="ready")
    answer = await client.post("/warm")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    assert "retry-after" not in answer.headers
    assert model.posts == 0


@pytest.mark.parametrize(
    ("headers", "settings", "taken"),
    [
        ({}, {}, True),  # curl
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://web.test"}, {}, True),
        ({"Origin": "http://web.test"}, {}, True),
        ({**CROSS_SITE, "Origin": "https://page.test"}, {}, False),
        (CROSS_SITE, {}, False),
        ({"Origin": "https://page.test"}, {}, False),
        (
            {**CROSS_SITE, "Origin": "https://page.test"},
            {"cors_origins": ["https://page.test"]},
            True,
        ),
        ({**CROSS_SITE, "Origin": "https://page.test"}, {"cors_origins": ["*"]}, True),
        (
            {**CROSS_SITE, "Origin": "https://evil.test"},
            {"cors_origins": ["https://page.test"]},
            False,
        ),
    ],
)
async def test_other_sites_pages_wake_nobody(
    front: Front, model: Model, headers: dict[str, str], settings: dict[str, Any], taken: bool
) -> None:
    """Without a body browsers send it at once, and ask nobody before."""
    client = await front(**settings)
    answer = await client.post("/warm", headers=headers)
    assert (answer.status_code, model.questions > 0) == ((202, True) if taken else (403, False))


async def test_warming_through_an_activator_is_answered_before_the_model_is_awake(front: Front, model: Model) -> None:
    model.asleep = model.silent
    client = await front()
    answers = await asyncio.gather(*(client.post("/warm") for _ in range(20)))
    assert {(answer.status_code, answer.json()["state"]) for answer in answers} == {(202, "waking")}
    assert (model.posts, model.questions) == (0, 1)
    model.awake.set()
    assert (await until_status(client, state="ready"))["expected_seconds"] >= 0.1


@pytest.mark.parametrize(
    ("body", "name"),
    [(None, "poet"), ({}, "poet"), ({"model": "painter"}, "painter"), ({"kind": "image"}, "painter")],
)
async def test_which_model_is_warmed(front: Front, model: Model, body: Any, name: str) -> None:
    model.awake.set()
    answer = await (await front()).post("/warm", **({} if body is None else {"json": body}))
    assert (answer.status_code, answer.json()["name"]) == (200, name)


async def test_without_a_prompt_the_model_is_warmed_that_answers_most(front: Front, model: Model) -> None:
    models = {"poet": {"url": "http://poet.test", "match": "poem"}, "novelist": "http://poet.test"}
    model.awake.set()
    client = await front(models=models)
    assert (await client.post("/warm")).json()["name"] == "novelist"
    assert (await client.get("/")).json()["default_model"] == "novelist"


@pytest.mark.parametrize(
    ("body", "problem", "field"),
    [
        (b'{"prompt": "x"}', "invalid-field", "prompt"),
        (b'{"kind": "sound"}', "invalid-field", "kind"),
        (b'{"model": "poet", "kind": "image"}', "invalid-field", "kind"),
        (b'{"model": "nobody"}', "unknown-model", None),
        (b"{", "malformed-body", None),
    ],
)
async def test_what_cannot_be_warmed(
    front: Front, model: Model, slug: Slug, body: bytes, problem: str, field: str | None
) -> None:
    answer = await (await front()).post("/warm", content=body, headers={"Content-Type": "application/json"})
    assert slug(answer) == problem
    assert [error["field"] for error in answer.json().get("errors", [])] == ([field] if field else [])
    assert model.questions == 0


async def test_a_broken_model_cannot_be_warmed(front: Front, model: Model, slug: Slug) -> None:
    model.asleep = model.broken
    answer = await (await front()).post("/warm")
    assert (answer.status_code, slug(answer)) == (503, "unavailable")


async def test_a_server_that_does_not_know_the_question_is_awake(front: Front, model: Model) -> None:
    async def foreign(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404)

    model.asleep = foreign
    answer = await (await front()).post("/warm")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")


async def test_a_wake_up_is_given_up_after_wake_seconds(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    readiness = Readiness("poet", "text", 60, 600, StatesFile(None))
    settings = Settings.model_validate({"models": {"poet": "http://poet.test"}, "wake_seconds": 0.1})
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(model)) as client:
        probe = ReadinessProbe(client, "http://poet.test", readiness, settings)
        probe.start()
        await eventually(lambda: readiness.state == "waking")
        await probe.settled(LIMIT)
    assert readiness.state == "unknown"
    assert "poet did not wake up in 0.1 s" in caplog.text


async def test_a_waking_model_is_asked_on_after_an_unforeseen_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe_module, "FAILED_SECONDS", 0.001)
    failures = [KeyError("a mistake"), RuntimeError("the handler is closed")]

    def answer(_request: httpx2.Request) -> httpx2.Response:
        if failures:
            raise failures.pop()
        return httpx2.Response(200)

    readiness = Readiness("poet", "text", 60, 600, StatesFile(None))
    settings = Settings.model_validate({"models": {"poet": "http://poet.test"}})
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        probe = ReadinessProbe(client, "http://poet.test", readiness, settings)
        probe.start()
        await probe.settled(LIMIT)
    assert readiness.state == "ready"
    assert caplog.text.count("asking poet has failed and is tried again") == 2


# GET /status


async def test_asking_for_the_status_asks_nobody(front: Front, model: Model) -> None:
    answer = await (await front()).get("/status")
    unknown = [
        {"name": "poet", "kind": "text", "state": "unknown"},
        {"name": "painter", "kind": "image", "state": "unknown"},
    ]
    assert (answer.status_code, answer.json()) == (200, {"models": unknown})
    assert answer.headers["cache-control"] == "no-store"
    assert (model.posts, model.questions) == (0, 0)


async def test_a_model_that_answers_nothing_falls_asleep(front: Front, model: Model, events: Events) -> None:
    client = await front(idle_seconds=0.3)
    await wake_up(client, model)
    awake = await status(client)
    assert awake["state"] == "ready"
    assert awake["expected_seconds"] >= 0.2
    asleep = await until_status(client, state="asleep")
    assert asleep["since"] >= awake["since"]
    assert "seconds" not in asleep
    answer = await client.post("/generate", json=REQUEST, headers=LIVE)
    assert states(events(answer.text)) == ["queued", "running"]  # for it was not


async def test_what_the_supervisor_reports_counts(front: Front, model: Model, tmp_path: Path, events: Events) -> None:
    path = tmp_path / "states.json"
    client = await front(states_file=path)
    begun = time.time()

    def report(state: str, phase: str | None = None) -> None:
        entry = {
            "state": state,
            "since": begun - 3,
            "phase": phase,
            "wake_seconds": [100, 4, 2, 3, 6, 5],
            "why": "",
        }
        path.with_suffix(".new").write_text(json.dumps({"pid": 1, "models": {"poet": entry}}))
        path.with_suffix(".new").replace(path)

    assert (await status(client))["state"] == "unknown"
    for state, shown in (("asleep", "asleep"), ("ready", "ready"), ("failed", "unknown")):
        report(state)
        found = await status(client)
        assert (found["state"], found["expected_seconds"]) == (shown, 4)
        assert "seconds" not in found
        assert (await status(client, "painter"))["state"] == "unknown"
    report("waking", "importing")
    found = await status(client)
    assert (found["state"], found["phase"]) == ("waking", "importing")
    assert 3 <= found["seconds"] <= round(3 + time.time() - begun, 1)
    report("asleep")
    model.asleep = model.silent
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=LIVE))
    await until_status(client, state="waking")
    model.awake.set()
    assert states(events((await waiting).text)) == ["asleep", "waking", "queued", "running"]
    path.write_text("{")
    assert (await status(client))["state"] == "ready"
