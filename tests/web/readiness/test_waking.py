"""A model that is asleep is woken by the first request, and everybody who waits is told how far it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from contract import Job, ModelStatus, ProblemError, StatusEvent, problems
from contract.cloudevents import PROGRESS, CloudEvent, GenerationProgress
from web.app import create_app
from web.jobs.memory_store import MemoryStore
from web.readiness.broadcast import ReadinessBroadcast
from web.readiness.model_readiness import Readiness
from web.readiness.probe import ReadinessProbe
from web.readiness.states_file import StatesFile
from web.settings import Settings
from wire.cloudevents import write_event

Stream = Callable[..., bytes]
Slug = Callable[[httpx.Response], str]
Events = Callable[[str], list[tuple[str, Any]]]
Opened = Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]
Front = Callable[..., Awaitable[httpx.AsyncClient]]

LIMIT = 10.0
SILENCE = 0.1
ORDER = {"prompt": "春"}
LIVE = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}
READY = "/v2/health/ready"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rest.upstream", "readiness.probe", "readiness.waiting_statuses"):
        monkeypatch.setattr(f"web.{module}.SILENCE_SECONDS", SILENCE)
    for module in ("rest.upstream", "readiness.probe"):
        monkeypatch.setattr(f"web.{module}.POLL_SECONDS", 0.02)


class Model:
    """A model server that is woken by hand. Until then it says that it is loading, or nothing, as `asleep` does."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.awake = asyncio.Event()
        self.asleep: Callable[[httpx.Request], Awaitable[httpx.Response]] = self.loading
        self.phase = "reading"
        self.posts = self.questions = self.in_flight = self.most_questions = 0
        self.held: asyncio.Event | None = None
        """Where there is one: what is awake does not answer before it is set."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        question = request.url.path == READY
        assert (request.method == "GET") == question
        self.posts += not question
        self.questions += question
        self.in_flight += 1
        try:
            if not self.awake.is_set():
                answer = await self.asleep(request)
                if not self.awake.is_set():
                    return answer
            if question:
                return httpx.Response(200, json={"ready": True})
            if self.held is not None:
                await self.held.wait()
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=self.text)
        finally:
            self.in_flight -= 1

    async def loading(self, _request: httpx.Request) -> httpx.Response:
        return refusal(problems.LOADING, retry_after=1, phase=self.phase, seconds=0.25)

    async def silent(self, _request: httpx.Request) -> httpx.Response:
        await self.awake.wait()
        return httpx.Response(500)  # which nobody sees


def refusal(kind: problems.ProblemType, **more: Any) -> httpx.Response:
    error = ProblemError(kind, "Because.", **more)
    return httpx.Response(kind.status, json=error.document, headers=error.headers)


@pytest.fixture
def model(stream: Stream) -> Model:
    return Model(stream("春", "天"))


@pytest.fixture
def front(opened: Opened, model: Model) -> Front:
    """Starts a web in front of the model, and gives a client of it."""

    async def start(**settings: Any) -> httpx.AsyncClient:
        models = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
        settings = {"models": models, "grace_seconds": 1, **settings}
        return await opened(create_app(Settings(**settings), httpx.MockTransport(model)))

    return start


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0.005)


async def status(client: httpx.AsyncClient, name: str = "poet") -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/status")).json()
    [found] = [entry for entry in document["models"] if entry["name"] == name]
    ModelStatus.model_validate(found)
    return dict(found)


async def until_status(client: httpx.AsyncClient, **members: Any) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while not members.items() <= (found := await status(client)).items():
            await asyncio.sleep(0.005)
    return found


async def wake_up(client: httpx.AsyncClient, model: Model) -> None:
    """From its state to ready."""
    waiting = asyncio.create_task(client.post("/generate", json=ORDER))
    await until_status(client, state="waking")
    model.awake.set()
    assert (await waiting).status_code == 200


def states(found: list[tuple[str, Any]]) -> list[str]:
    return [data["state"] for name, data in found if name == "status"]


# Waiting


async def test_a_client_waits_while_the_model_is_loading(front: Front, model: Model) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER))
    await until(lambda: model.questions > 2)
    assert not waiting.done()
    model.awake.set()
    answer = await waiting
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert model.posts == 2  # the other one was refused


async def test_a_client_waits_while_nobody_answers(front: Front, model: Model) -> None:
    """As Knative's activator does it: longer than a model that is awake may be silent."""
    model.asleep = model.silent
    client = await front(read_seconds=0.05)
    waiting = asyncio.create_task(client.post("/generate", json=ORDER))
    await until_status(client, state="waking")
    assert not waiting.done()
    model.awake.set()
    assert (await waiting).json()["text"] == "春天"
    assert model.posts == 1


async def test_a_gateway_that_gives_up_is_asked_again(front: Front, model: Model) -> None:
    given_up = asyncio.Event()

    async def gateway(request: httpx.Request) -> httpx.Response:
        if request.url.path != READY:
            await given_up.wait()
        return httpx.Response(504, text="activator request timeout")

    model.asleep = gateway
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER))
    await until_status(client, state="waking")
    given_up.set()
    await until(lambda: model.questions > 2)
    assert not waiting.done()
    model.awake.set()
    assert (await waiting).status_code == 200


async def test_one_question_at_a_time_goes_to_a_model_however_many_wait(front: Front, model: Model) -> None:
    most = 0

    async def loading(request: httpx.Request) -> httpx.Response:
        nonlocal most
        most = max(most, model.in_flight if request.url.path == READY else 0)
        await asyncio.sleep(0.01)
        return await model.loading(request)

    model.asleep = loading
    client = await front()
    waiting = [asyncio.create_task(client.post("/generate", json=ORDER)) for _ in range(20)]
    await until(lambda: model.posts == 20)
    await until(lambda: model.in_flight <= 1)
    most, asked = 0, model.questions
    await until(lambda: model.questions > asked + 3)
    assert most == 1
    model.awake.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert model.posts == 40


async def test_those_who_wait_are_bounded(front: Front, model: Model, slug: Slug) -> None:
    client = await front(max_in_flight=1)
    waiting = asyncio.create_task(client.post("/generate", json=ORDER))
    await until_status(client, state="waking")
    assert slug(await client.post("/generate", json=ORDER)) == "overloaded"
    model.awake.set()
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("headers", [{}, LIVE], ids=["JSON", "SSE"])
async def test_leaving_frees_the_place_and_the_model_wakes_up_all_the_same(
    front: Front, model: Model, headers: dict[str, str]
) -> None:
    model.asleep = model.silent
    client = await front(max_in_flight=1)
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=headers))
    await until_status(client, state="waking")
    waiting.cancel()
    await asyncio.wait({waiting})
    await until(lambda: model.in_flight == 1)  # the question
    second = asyncio.create_task(client.post("/generate", json=ORDER))
    await until(lambda: model.posts == 2)
    model.awake.set()
    assert (await second).status_code == 200
    assert model.questions == 1


# Not waiting


async def test_a_model_that_is_broken_is_not_waited_for(front: Front, model: Model, slug: Slug) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER))
    await until_status(client, state="waking")

    async def broken(_request: httpx.Request) -> httpx.Response:
        return refusal(problems.UNAVAILABLE)

    model.asleep = broken
    answer = await waiting
    assert (answer.status_code, slug(answer), answer.json()["detail"]) == (503, "unavailable", "Because.")
    assert (await status(client))["state"] == "unknown"


async def test_nobody_waits_longer_than_the_request_may_take(front: Front, model: Model, slug: Slug) -> None:
    client = await front()
    for asleep in (model.loading, model.silent):
        model.asleep = asleep
        begun = time.monotonic()
        answer = await client.post("/generate", json=ORDER, headers={"X-Request-Timeout": "0.3"})
        assert time.monotonic() - begun >= 0.3
        assert (answer.status_code, slug(answer)) == (503, "loading")
        assert answer.headers["retry-after"] == "5"  # for nobody knows


@pytest.mark.parametrize("headers", [{}, LIVE], ids=["JSON", "SSE"])
@pytest.mark.parametrize("silent", [False, True], ids=["loading", "silent"])
async def test_what_would_be_too_late_is_told_so_at_once_and_wakes_the_model(
    front: Front, model: Model, events: Events, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], silent: bool
) -> None:
    monkeypatch.setattr(Readiness, "expected_seconds", 20.0)
    model.asleep = model.silent if silent else model.loading
    client = await front()
    async with asyncio.timeout(LIMIT):
        answer = await client.post("/generate", json=ORDER, headers={**headers, "X-Request-Timeout": "15"})
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


# Telling


async def test_each_phase_is_told(front: Front, model: Model, events: Events) -> None:
    client = await front(heartbeat_seconds=0.02)
    for expected in (False, True):
        waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
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
        client = client if expected else await second_night(client, model)


async def second_night(client: httpx.AsyncClient, model: Model) -> httpx.AsyncClient:
    """It has fallen asleep, which is found out by a connection that breaks."""

    async def breaks(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    asleep, model.asleep = model.asleep, breaks
    assert (await client.post("/generate", json=ORDER)).status_code == 502
    model.asleep = asleep
    assert (await status(client))["state"] == "unknown"
    return client


async def test_silence_tells_of_waking(front: Front, model: Model, events: Events) -> None:
    model.asleep = model.silent
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
    await until_status(client, state="waking")
    late = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
    await until(lambda: model.posts == 2)
    await asyncio.sleep(2 * SILENCE)
    model.awake.set()
    found = events((await waiting).text)
    assert states(found) == ["asleep", "waking", "queued", "running"]
    assert found[1][1]["seconds"] >= 0.1
    assert found[-1][0] == "result"
    assert states(events((await late).text)) == ["waking", "queued", "running"]


async def test_how_long_it_has_been_waking_is_told_again(
    front: Front, model: Model, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.readiness.waiting_statuses.REPEAT_SECONDS", 0.05)
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
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
        await client.post("/generate", json=ORDER)
    model.held = asyncio.Event()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
    await until(lambda: model.in_flight)
    await asyncio.sleep(3 * SILENCE)
    model.held.set()
    assert states(events((await waiting).text)) == ["queued", "running"]
    assert model.questions == 0


async def test_silence_while_others_are_answered_is_a_queue(front: Front, model: Model, events: Events) -> None:
    end = asyncio.Event()

    async def endless(_request: httpx.Request) -> httpx.Response:
        async def content() -> Any:
            yield model.text[:10]
            await end.wait()
            yield model.text[10:]

        model.held = asyncio.Event()
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    model.asleep = endless
    client = await front(idle_seconds=0.01)
    answered = asyncio.create_task(client.post("/generate", json=ORDER))
    await until_status(client, state="ready")
    model.awake.set()
    await asyncio.sleep(0.05)  # longer than the idle window
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
    await until(lambda: model.posts == 2)
    await asyncio.sleep(3 * SILENCE)
    assert model.held is not None
    model.held.set()
    assert states(events((await waiting).text)) == ["queued", "running"]
    warm = await client.post("/warm")
    assert (warm.status_code, warm.json()["state"], model.questions) == (200, "ready", 0)
    end.set()
    assert (await answered).status_code == 200


async def test_an_error_in_the_end_is_told_once(front: Front, model: Model, events: Events) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers={**LIVE, "X-Request-Timeout": "0.5"}))
    await until_status(client, state="waking")
    answer = await waiting
    found = events(answer.text)
    assert (answer.status_code, [name for name, _ in found]) == (200, ["status", "status", "error"])
    assert found[-1][1]["type"] == problems.LOADING.uri


# JobService


async def test_a_job_tells_how_far_its_model_is(front: Front, model: Model, events: Events) -> None:
    client = await front(max_job_runs=1)
    keyed = asyncio.create_task(client.post("/generate", json=ORDER, headers={**LIVE, "Idempotency-Key": "k"}))
    await until(lambda: model.posts)
    answers = [await client.post("/generate", json=ORDER, headers=ASYNC) for _ in range(2)]
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
    assert [events(text)[0][1]["position"] for text in (first, second)] == [1, 2]
    for text in (first, second):
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
    where = (await client.post("/generate", json=ORDER, headers=ASYNC)).headers["location"]
    watching = asyncio.create_task(client.get(where, headers=LIVE))
    await until_status(client, state="waking")
    assert (await client.delete(where)).json()["state"] == "cancelled"
    assert events((await watching).text)[-1][1]["type"] == problems.CANCELLED.uri
    await until(lambda: model.in_flight == 1)  # the question
    model.awake.set()
    await until_status(client, state="ready")
    assert model.posts == 1


async def test_a_job_waits_until_its_deadline_whatever_is_expected(
    front: Front, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "expected_seconds", 20.0)
    client = await front()
    headers = {**ASYNC, "X-Request-Timeout": "5"}
    where = (await client.post("/generate", json=ORDER, headers=headers)).headers["location"]
    await until_status(client, state="waking")
    assert (await client.get(where)).headers["retry-after"] == "20"
    model.awake.set()
    async with asyncio.timeout(LIMIT):
        while (job := (await client.get(where)).json())["state"] == "queued":
            await asyncio.sleep(0.01)
    assert job["state"] in ("running", "completed")


async def test_what_one_replica_sees_all_know(front: Front, model: Model, redis_url: str, events: Events) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    async with asyncio.timeout(LIMIT):  # the other does not hear anything before it listens
        while (await status(other))["state"] != "waking":
            await one.post("/warm")
            await second_night(one, model)
            await one.post("/warm")
            await asyncio.sleep(0.05)
    keyed = {**LIVE, "Idempotency-Key": "k"}
    watching = asyncio.create_task(other.post("/generate", json=ORDER, headers=keyed))
    model.phase = "warming up"
    assert (await until_status(other, phase="warming up"))["seconds"] >= 0.2
    model.awake.set()
    assert (await until_status(other, state="ready"))["expected_seconds"] >= 0.2
    assert (await until_status(one, state="ready"))["expected_seconds"] >= 0.2
    found = events((await watching).text)
    assert "waking" in states(found)
    assert found[-1][0] == "result"


async def test_a_replica_does_not_believe_itself() -> None:
    store, readiness = MemoryStore(60, 1_000_000, 1_000), Readiness("poet", "text", 60, 600, StatesFile(None))
    store.shared = True
    replicas = ReadinessBroadcast(store, {"poet": readiness})
    replicas.open()
    received: list[str] = []
    store.subscribe(received.append)
    readiness.wakes(time.monotonic(), seconds=4)
    readiness.answered()
    readiness.wakes(time.monotonic(), seconds=10)
    await until(lambda: len(received) >= 3)
    assert readiness.status.state == "waking"
    assert readiness.expected_seconds == 4  # what it heard of the first one has not ended the second
    lost = ModelStatus(name="poet", kind="text", state="unknown")
    await store.broadcast("somebody-else " + lost.model_dump_json())
    assert readiness.waking is None
    await store.broadcast("somebody-else {")
    await replicas.close()


def test_a_model_that_is_awake_here_is_not_waking_for_others() -> None:
    told: list[ModelStatus] = []
    here, there = [Readiness("poet", "text", 60, 600, StatesFile(None)) for _ in range(2)]
    here.answered()
    here.subscribe(lambda status, _origin: told.append(status))
    there.wakes(time.monotonic())
    here.receive(there.status)
    assert (here.state, [status.state for status in told]) == ("ready", ["ready"])
    there.receive(told[0])
    assert there.state == "ready"
    there.lost()
    here.receive(there.status)
    assert (here.state, len(told)) == ("ready", 1)


# Events


async def deliver(client: httpx.AsyncClient, phase: str, name: str = "poet") -> None:
    data = GenerationProgress(model=name, state="loading", phase=phase, seconds=0.5)
    event = CloudEvent(id=phase, source="urn:test", type=PROGRESS).with_data(data)
    headers, body = write_event(event)
    assert (await client.post("/events", headers=headers, content=body)).status_code == 204


async def test_events_tell_of_loading(opened: Opened, events: Events, slug: Slug) -> None:
    settings = Settings.model_validate(
        {"models": {"poet": {"kind": "text"}}, "dispatch": "events", "k_sink": "http://sink.test"}
    )
    client = await opened(create_app(settings, httpx.MockTransport(lambda _: httpx.Response(202))))
    where = (await client.post("/generate", json=ORDER, headers=ASYNC)).headers["location"]
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
    assert states(found) == ["queued", "asleep", "waking", "waking", "queued"]
    await deliver(client, "failed")
    assert (await status(client))["state"] == "unknown"
    refused = await client.post("/warm")
    assert (refused.status_code, slug(refused)) == (501, "not-implemented")


# POST /warm


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
    async def broken(_request: httpx.Request) -> httpx.Response:
        return refusal(problems.UNAVAILABLE)

    model.asleep = broken
    answer = await (await front()).post("/warm")
    assert (answer.status_code, slug(answer)) == (503, "unavailable")


async def test_a_server_that_does_not_know_the_question_is_awake(front: Front, model: Model) -> None:
    async def foreign(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404)

    model.asleep = foreign
    answer = await (await front()).post("/warm")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")


async def test_a_wake_up_is_given_up_some_time(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    readiness = Readiness("poet", "text", 60, 600, StatesFile(None))
    settings = Settings.model_validate({"models": {"poet": "http://poet.test"}, "wake_seconds": 0.1})
    async with httpx.AsyncClient(transport=httpx.MockTransport(model)) as client:
        waker = ReadinessProbe(client, "http://poet.test", readiness, settings)
        waker.start()
        await until(lambda: readiness.state == "waking")
        await waker.settled(LIMIT)
    assert readiness.state == "unknown"
    assert "poet did not wake up in 0.1 s" in caplog.text


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


async def test_a_model_from_which_nothing_comes_falls_asleep(front: Front, model: Model, events: Events) -> None:
    client = await front(idle_seconds=0.3)
    await wake_up(client, model)
    awake = await status(client)
    assert awake["state"] == "ready"
    assert awake["expected_seconds"] >= 0.2
    asleep = await until_status(client, state="asleep")
    assert asleep["since"] >= awake["since"]
    assert "seconds" not in asleep
    answer = await client.post("/generate", json=ORDER, headers=LIVE)
    assert states(events(answer.text)) == ["queued", "running"]  # for it was not


async def test_what_is_reported_counts(front: Front, model: Model, tmp_path: Path, events: Events) -> None:
    path = tmp_path / "states.json"
    client = await front(states_file=path)

    def report(state: str, phase: str | None = None) -> None:
        entry = {
            "state": state,
            "since": time.time() - 3,
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
    assert 3 <= found["seconds"] < 4
    report("asleep")
    model.asleep = model.silent
    waiting = asyncio.create_task(client.post("/generate", json=ORDER, headers=LIVE))
    await until_status(client, state="waking")
    model.awake.set()
    assert states(events((await waiting).text)) == ["asleep", "waking", "queued", "running"]
    path.write_text("{")
    assert (await status(client))["state"] == "ready"


def test_the_next_wake_up_is_expected_to_be_as_the_last_ones_in_the_middle() -> None:
    readiness = Readiness("poet", "text", 60, 600, StatesFile(None))
    assert readiness.expected_seconds is None
    for seconds in (500, 100, 4, 2, 3, 6):
        readiness.wakes(time.monotonic(), seconds=seconds)
        readiness.answered()
    assert readiness.expected_seconds == pytest.approx(4, abs=0.2)
    readiness.wakes(time.monotonic(), seconds=1.5)
    assert readiness.retry_after == 3
    readiness.wakes(time.monotonic(), seconds=50)
    assert readiness.retry_after == 1


def test_a_wake_up_of_which_nothing_is_heard_any_more_is_forgotten() -> None:
    readiness = Readiness("poet", "text", 60, 0.01, StatesFile(None))
    readiness.wakes(time.monotonic(), "reading")
    assert readiness.state == "waking"
    time.sleep(0.02)
    assert (readiness.state, readiness.waking) == ("unknown", None)
