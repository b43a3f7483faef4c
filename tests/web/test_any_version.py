"""Fields from the future in whatever web reads of other versions: it goes on as if they were not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from contract import Problem, ProblemError, problems
from contract.cloudevents import ACCEPTED, COMPLETED, FAILED, PROGRESS, Acceptance, GenerationProgress
from contract.problems import FieldError, field_problem
from tests.support.events import Opened, Sink, about, deliver, newer, painting, poem
from tests.support.events import ended as ended_job
from tests.support.events import submit as submit_event
from tests.support.waiting import eventually
from tests.support.web.job_requests import LIVE, ended, read, submit
from web.app import create_app
from web.client.failures import our_problem
from web.jobs import results
from web.jobs.stores.memory_store import MemoryStore
from web.readiness.broadcast import ReadinessBroadcast
from web.readiness.model_readiness import Readiness
from web.readiness.states_file import StatesFile
from web.rest.picture_stream import parse_picture_event
from web.rest.text_stream import parse_chunk
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Handler = Callable[[httpx2.Request], httpx2.Response]

JOB = "a" * 32
PROBLEM = field_problem([FieldError(field="prompt", detail="is required")]).problem
MODELS = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}


@pytest.fixture
async def client(
    opened: Opened, painter: Handler, stream: Callable[..., bytes], sse_answer: Handler, redis_url: str, tmp_path: Path
) -> httpx2.AsyncClient:
    """A web on a Redis."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return painter(request) if request.url.host == "painter.test" else sse_answer(stream("春", "天"))  # type: ignore[arg-type]

    settings: dict[str, Any] = {"models": MODELS, "store_url": redis_url, "artifacts_url": tmp_path.as_uri()}
    return await opened(create_app(Settings(**settings), httpx2.MockTransport(answer)))


@pytest.fixture
def raw(redis_client: redis.Redis) -> Any:
    return redis_client


def store(raw: Any, **fields: str) -> None:
    """A job as a version to come may store it."""
    request = newer('{"prompt":"春","model":"poet"}')
    job = {"model": "poet", "kind": "text", "order": request, "digest": "d", "created": "1", "deadline": "4000000000.0"}
    raw.hset(f"shangcai:job:{JOB}", mapping={**job, "headers": "{}", "mood": "glad", **fields})
    for event, data in (("status", '{"state":"running"}'), ("dream", '{"of": 1}')):
        raw.xadd(f"shangcai:log:{JOB}", {"event": event, "data": newer(data), "mood": "glad"})


@pytest.mark.parametrize("kind", ["text", "image"])
async def test_a_stored_result(client: httpx2.AsyncClient, raw: Any, kind: str) -> None:
    result = poem(JOB) if kind == "text" else painting(JOB)
    store(raw, kind=kind, end="completed", ended="2.0", outcome=newer(result.model_dump_json()))
    raw.xadd(f"shangcai:log:{JOB}", {"event": "result", "data": "", "mood": "glad"})
    answer = await client.get(f"/generations/{JOB}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"] == json.loads(result.model_dump_json())
    events = [(name, data) for _, name, data in read((await client.get(f"/generations/{JOB}", headers=LIVE)).text)]
    assert [name for name, _ in events] == ["status", "status", "dream", "result"]
    if kind == "image":
        assert (await client.get(f"/generations/{JOB}", headers={"Accept": "image/png"})).content == b"a picture"


async def test_a_stored_problem(client: httpx2.AsyncClient, raw: Any) -> None:
    store(raw, end="failed", ended="2.0", outcome=newer(PROBLEM.model_dump_json(exclude_none=True)))
    answer = await client.get(f"/generations/{JOB}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["error"]["errors"][0]["field"] == "prompt"


async def test_a_result_in_the_artifacts(
    client: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "EVENT_BYTES", 0)
    location = await submit(client, {"prompt": "猫", "kind": "image"})
    job = await ended(client, location)
    rewrite(tmp_path)
    assert (await client.get(location)).json() == job


def rewrite(folder: Path) -> None:
    [file] = folder.iterdir()
    file.write_text(newer(file.read_text()))


async def test_a_stored_request(client: httpx2.AsyncClient, raw: Any) -> None:
    """A job that a newer replica has taken, and this one runs."""
    store(raw)
    raw.zadd("shangcai:open", {JOB: 4e9})
    entry = raw.xadd("shangcai:queue:poet", {"job": JOB, "mood": "glad"})
    raw.hset(f"shangcai:job:{JOB}", "entry", entry)
    assert (await ended(client, f"/generations/{JOB}"))["result"]["text"] == "春天"


@pytest.mark.parametrize("result", [poem(JOB), painting(JOB)], ids=["text", "image"])
async def test_events_of_a_newer_predictor(opened: Opened, result: Any) -> None:
    sink = Sink()
    settings = Settings(
        models={"poet": {"kind": "text"}, "painter": {"kind": "image"}}, dispatch="events", k_sink="http://sink"
    )
    client = await opened(create_app(settings, httpx2.MockTransport(sink)))
    job = await submit_event(client, kind=result.kind)
    await eventually(lambda: sink.events)
    progress = GenerationProgress(model="poet", state="running", text="春")
    events = [
        about(job, ACCEPTED, Acceptance(model="poet", kind="text")),
        about(job, PROGRESS, progress),
        about(None, PROGRESS, GenerationProgress(model="poet", state="loading", phase="ready")),
        about(job, COMPLETED, result.model_copy(update={"id": job}), mood="glad"),
    ]
    for event in events:
        event = event.model_copy(update={"data": newer(event.data or b"").encode()})
        answer = await deliver(client, event)
        assert answer.status_code == 204, answer.text
    assert (await ended_job(client, job))["result"] == json.loads(
        result.model_copy(update={"id": job}).model_dump_json()
    )

    job = await submit_event(client, kind=result.kind)
    event = about(job, FAILED, PROBLEM)
    await deliver(client, event.model_copy(update={"data": newer(event.data or b"").encode()}))
    assert (await ended_job(client, job))["error"]["errors"][0]["field"] == "prompt"


def test_a_problem_of_a_newer_predictor() -> None:
    error = our_problem("http://poet", newer(PROBLEM.model_dump_json(exclude_none=True)).encode())
    assert isinstance(error, ProblemError)
    assert error.kind is problems.INVALID_FIELD
    assert Problem.of_any_version(json.dumps(error.document)).detail == "prompt: is required"


def test_the_stream_of_a_newer_predictor(stream: Callable[..., bytes], picture: Callable[..., dict[str, Any]]) -> None:
    chunks = [line.removeprefix(b"data: ") for line in stream("春").splitlines() if line.startswith(b"data: {")]
    for chunk in chunks:
        assert parse_chunk("http://poet", newer(chunk).encode()) == parse_chunk("http://poet", chunk)
    event = json.dumps(picture(b"x"))
    assert parse_picture_event("http://painter", newer(event).encode()) == parse_picture_event(
        "http://painter", event.encode()
    )


async def test_what_a_newer_replica_broadcasts() -> None:
    store = MemoryStore(60, 1_000_000, 1_000)
    store.shared = True
    readiness = Readiness("poet", "text", 60, 600, StatesFile(None))
    broadcast = ReadinessBroadcast(store, {"poet": readiness})
    broadcast.open()
    await store.broadcast("another " + newer('{"name":"poet","kind":"text","state":"ready"}'))
    assert readiness.state == "ready"
    await broadcast.close()
