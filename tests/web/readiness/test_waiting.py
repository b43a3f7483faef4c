"""Requests wait for a model that is asleep, which the first of them wakes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract import problems
from tests.support.waiting import eventually
from tests.support.waking import (
    LIMIT,
    LIVE,
    READY,
    REQUEST,
    Events,
    Front,
    Model,
    Slug,
    status,
    until_status,
)
from web.readiness.model_readiness import Readiness


async def test_a_client_waits_while_the_model_is_loading(front: Front, model: Model) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST))
    await eventually(lambda: model.questions > 2)
    assert not waiting.done()
    model.awake.set()
    answer = await waiting
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert model.posts == 2  # the other one was refused


async def test_a_client_waits_while_nobody_answers(front: Front, model: Model) -> None:
    """As Knative's activator does it: longer than a model that is awake may be silent."""
    model.asleep = model.silent
    client = await front(read_seconds=0.05)
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="waking")
    assert not waiting.done()
    model.awake.set()
    assert (await waiting).json()["text"] == "春天"
    assert model.posts == 1


async def test_a_gateway_that_gives_up_is_asked_again(front: Front, model: Model) -> None:
    given_up = asyncio.Event()

    async def gateway(request: httpx2.Request) -> httpx2.Response:
        if request.url.path != READY:
            await given_up.wait()
        return httpx2.Response(504, text="activator request timeout")

    model.asleep = gateway
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="waking")
    given_up.set()
    await eventually(lambda: model.questions > 2)
    assert not waiting.done()
    model.awake.set()
    assert (await waiting).status_code == 200


async def test_one_question_at_a_time_goes_to_a_model_however_many_wait(front: Front, model: Model) -> None:
    most = 0

    async def loading(request: httpx2.Request) -> httpx2.Response:
        nonlocal most
        most = max(most, model.in_flight if request.url.path == READY else 0)
        await asyncio.sleep(0.01)
        return await model.loading(request)

    model.asleep = loading
    client = await front()
    waiting = [asyncio.create_task(client.post("/generate", json=REQUEST)) for _ in range(20)]
    await eventually(lambda: model.posts == 20)
    await eventually(lambda: model.in_flight <= 1)
    most, asked = 0, model.questions
    await eventually(lambda: model.questions > asked + 3)
    assert most == 1
    model.awake.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert model.posts == 40


async def test_those_who_wait_are_bounded(front: Front, model: Model, slug: Slug) -> None:
    client = await front(max_in_flight=1, max_waiting=0)
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="waking")
    assert slug(await client.post("/generate", json=REQUEST)) == "overloaded"
    model.awake.set()
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("headers", [{}, LIVE], ids=["JSON", "SSE"])
async def test_leaving_makes_room_and_the_model_wakes_up_all_the_same(
    front: Front, model: Model, headers: dict[str, str]
) -> None:
    model.asleep = model.silent
    client = await front(max_in_flight=1)
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST, headers=headers))
    await until_status(client, state="waking")
    waiting.cancel()
    await asyncio.wait({waiting})
    await eventually(lambda: model.in_flight == 1)  # the question
    second = asyncio.create_task(client.post("/generate", json=REQUEST))
    await eventually(lambda: model.posts == 2)
    model.awake.set()
    assert (await second).status_code == 200
    assert model.questions == 1


# Not waiting


async def test_a_model_that_is_broken_is_not_waited_for(front: Front, model: Model, slug: Slug) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="waking")
    model.asleep = model.broken
    answer = await waiting
    assert (answer.status_code, slug(answer), answer.json()["detail"]) == (503, "unavailable", "Because.")
    assert (await status(client))["state"] == "unknown"


async def test_nobody_waits_longer_than_the_request_may_take(front: Front, model: Model, slug: Slug) -> None:
    client = await front()
    for asleep in (model.loading, model.silent):
        model.asleep = asleep
        begun = time.monotonic()
        answer = await client.post("/generate", json=REQUEST, headers={"X-Request-Timeout": "0.3"})
        assert time.monotonic() - begun >= 0.3
        assert (answer.status_code, slug(answer)) == (503, "loading")
        assert answer.headers["retry-after"] == "5"  # for nobody knows


@pytest.mark.parametrize("headers", [{}, LIVE], ids=["JSON", "SSE"])
@pytest.mark.parametrize("silent", [False, True], ids=["loading", "silent"])
async def test_a_request_that_would_be_too_late_fails_at_once_and_wakes_the_model(
    front: Front, model: Model, events: Events, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], silent: bool
) -> None:
    monkeypatch.setattr(Readiness, "expected_seconds", 20.0)
    model.asleep = model.silent if silent else model.loading
    client = await front()
    async with asyncio.timeout(LIMIT):
        answer = await client.post("/generate", json=REQUEST, headers={**headers, "X-Request-Timeout": "15"})
    if answer.status_code == 200:  # something had been told before
        assert headers == LIVE
        *_, (name, problem) = events(answer.text)
        assert name == "error"
    else:
        problem = answer.json()
        assert answer.headers["retry-after"] == "20"
    assert (problem["status"], problem["type"], problem["retry_after"]) == (503, problems.LOADING.uri, 20)
    assert (problem["expected_seconds"], problem.get("phase")) == (20, None if silent else "reading")
    model.awake.set()
    await until_status(client, state="ready")
    assert model.posts == 1


@pytest.mark.parametrize("state", ["asleep", "waking"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", REQUEST),
        ("/v1/chat/completions", {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}),
        ("/v1/completions", {"model": "poet", "prompt": ["moon", "sun"]}),
        ("/v1/images/generations", {"model": "painter", "prompt": "moon"}),
    ],
)
async def test_a_stream_that_is_known_to_be_too_late_has_a_status_of_its_own(
    front: Front, model: Model, tmp_path: Path, state: str, path: str, body: dict[str, Any]
) -> None:
    """So OpenAI's clients ask again by themselves."""
    states = tmp_path / "states.json"
    entry = {"state": state, "since": time.time(), "wake_seconds": [200]}
    states.write_text(json.dumps({"models": {"poet": entry, "painter": entry}}))
    client = await front(states_file=states)
    for _ in range(2):  # the second finds a model that is waking
        answer = await client.post(path, json=body | {"stream": True}, headers={"X-Request-Timeout": "15"})
        assert (answer.status_code, answer.json()["type"]) == (503, problems.LOADING.uri)
        assert 100 < int(answer.headers["retry-after"]) <= 200
    await eventually(lambda: model.questions > 0)
    assert model.posts == 0
    assert "for 0 s" not in answer.json()["detail"]
