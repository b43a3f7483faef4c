"""`/generations/{id}`: a job fetched in every form, cancelled, and served by every replica."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from contract import Job, problems
from tests.support.waiting import eventually
from tests.support.web.job_requests import (
    ASYNC,
    CAT,
    LIMIT,
    LIVE,
    PNG,
    REQUEST,
    Front,
    Poet,
    ended,
    in_state,
    submit,
    watched,
)
from web.app import create_app
from web.jobs.stores import memory_queue, redis_connection
from web.settings import Settings

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RawServer = Callable[[Connection], Awaitable[str]]
Serve = Callable[[ASGIApp], Awaitable[str]]
Slug = Callable[[httpx2.Response], str]
Stream = Callable[..., bytes]

RESPONSE = {"model": "poet", "input": "春"}
SHORT = {"X-Request-Timeout": "1"}
PATIENCE = 3 * LIMIT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_job_in_every_state(front: Front, poet: Poet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_queue, "PLACE_SECONDS", 0)
    client = await front(max_job_runs=1)
    first, second, third = [await submit(client) for _ in range(3)]
    await eventually(lambda: poet.asked)
    running = await in_state(client, first, "running")
    assert {"position", "ended_at", "result", "error"} & running.json().keys() == set()
    assert running.headers["retry-after"]
    queued = await client.get(third)
    assert (queued.json()["state"], queued.json()["position"]) == ("queued", 2)
    assert "started_at" not in queued.json()
    cancelled = await client.delete(second)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["error"]["type"] == "urn:shangcai:problem:cancelled"
    assert "retry-after" not in cancelled.headers
    assert (await client.get(third)).json()["position"] == 1
    poet.finish.set()
    for location in (first, third):
        completed = await ended(client, location)
        Job.model_validate_json(json.dumps(completed))
        assert completed["result"]["timing"]["queue_s"] is None  # which a result says


async def test_pictures_in_every_form(front: Front) -> None:
    client = await front()
    one, two = await submit(client, CAT), await submit(client, {**CAT, "n": 2, "format": "webp"})
    await ended(client, one)
    await ended(client, two)
    picture = await client.get(one, headers=PNG)
    assert (picture.status_code, picture.headers["content-type"], picture.content) == (200, "image/png", b"picture 0")
    assert picture.headers["x-seed"]
    again = await client.get(one, headers={**PNG, "If-None-Match": picture.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    parts = await client.get(two, headers={"Accept": "multipart/mixed, */*;q=0.1"})
    assert (parts.status_code, parts.headers["content-type"].partition(";")[0]) == (200, "multipart/mixed")
    assert parts.content.index(b"picture 0") < parts.content.index(b"picture 1")
    for accept in ("application/json", "*/*", ""):
        document = await client.get(one, headers={"Accept": accept})
        assert document.json()["state"] == "completed"


@pytest.mark.parametrize(
    ("request_body", "accept"),
    [
        (REQUEST, "image/png"),
        (REQUEST, "text/html"),
        (CAT, "image/webp"),
        ({**CAT, "format": "webp"}, "image/png"),
        ({**CAT, "n": 2}, "image/png"),
    ],
)
async def test_a_form_that_the_job_does_not_have_is_refused(
    front: Front, slug: Slug, request_body: dict[str, Any], accept: str
) -> None:
    client = await front()
    refused = await client.get(await submit(client, request_body), headers={"Accept": accept})
    assert (refused.status_code, slug(refused)) == (406, "not-acceptable")
    assert "application/json" in refused.json()["detail"]


async def test_a_picture_that_is_not_finished_is_a_202(front: Front) -> None:
    client = await front(max_job_runs=1, models={"painter": {"url": "http://poet.test", "kind": "image"}})
    location = await submit(client, CAT)
    answer = await client.get(location, headers=PNG)
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json()["state"] in ("queued", "running")
    assert answer.headers["retry-after"]
    await client.delete(location)


async def test_a_failure_is_the_answer_in_every_form(front: Front, poet: Poet, slug: Slug) -> None:
    poet.refusal = httpx2.Response(400, json={"error": {"message": "too long"}})
    client = await front(models={"poet": "http://poet.test", "painter": {"url": "http://poet.test", "kind": "image"}})
    location = await submit(client, CAT)
    document = await ended(client, location)
    assert (document["state"], document["error"]["type"]) == ("failed", "urn:shangcai:problem:invalid-field")
    assert "result" not in document
    assert (await client.get(location)).status_code == 200  # the job is there
    picture = await client.get(location, headers=PNG)
    assert (picture.status_code, picture.headers["content-type"]) == (400, problems.MEDIA_TYPE)
    assert picture.json() == document["error"]  # without an instance: others get the same
    _, name, data = (await watched(client, location))[-1]
    assert (name, data) == ("error", document["error"])
    waited = await client.post("/generate", json=REQUEST, headers={"Prefer": "wait=10"})
    assert (waited.status_code, slug(waited)) == (400, "invalid-field")


async def test_a_cancelled_picture_is_a_410(front: Front) -> None:
    client = await front(models={"painter": {"url": "http://poet.test", "kind": "image"}})
    location = await submit(client, CAT)
    await client.delete(location)
    gone = await client.get(location, headers=PNG)
    assert (gone.status_code, gone.json()["type"]) == (410, problems.CANCELLED.uri)
    assert [(name, data.get("type")) for _, name, data in await watched(client, location)][-1] == (
        "error",
        "urn:shangcai:problem:cancelled",
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "image/png"])
async def test_an_unknown_job_is_not_found(front: Front, slug: Slug, method: str, accept: str) -> None:
    client = await front()
    answer = await client.request(method, "/generations/unknown", headers={"Accept": accept})
    assert (answer.status_code, slug(answer)) == (404, "not-found")


async def test_a_job_takes_no_other_method(front: Front, slug: Slug) -> None:
    client = await front()
    answer = await client.put(await submit(client), json={})
    assert (answer.status_code, slug(answer)) == (405, "method-not-allowed")


async def forgotten(client: httpx2.AsyncClient, location: str) -> httpx2.Response | None:
    answer = await client.get(location)
    return None if answer.status_code == 200 else answer


@pytest.mark.parametrize(
    ("settings", "headers", "level"),
    [({}, {"X-Request-Timeout": "1"}, "INFO"), ({"job_seconds": 1}, {}, "WARNING")],
)
async def test_a_limit_of_the_clients_own_is_nobodys_failure(
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, float],
    headers: dict[str, str],
    level: str,
) -> None:
    monkeypatch.setattr("web.jobs.worker.REAP_SECONDS", 60)  # which would end it, too
    caplog.set_level("INFO")
    client = await front(**settings)
    answer = await client.post("/generate", json=REQUEST, headers=ASYNC | headers)
    assert answer.status_code == 202

    def logged() -> list[str]:
        return [record.levelname for record in caplog.records if record.message.startswith("too-late at")]

    await eventually(logged, "the job is too late")
    assert logged() == [level]


async def test_an_ended_job_is_forgotten(front: Front, slug: Slug) -> None:
    client = await front(job_keep_seconds=0.05)
    location = await submit(client)
    await client.delete(location)
    answer = await eventually(lambda: forgotten(client, location), f"{location} is forgotten")
    assert answer is not None
    assert slug(answer) == "not-found"
    assert "0.05 s" in answer.json()["detail"]


async def test_deleting_a_job_stops_it_upstream(serve: Serve, raw_server: RawServer, stream: Stream) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = stream("x", finish_reason=None, usage=None, done=False)
        writer.write(HEAD + b"%x\r\n%s\r\n" % (len(data), data))
        asked.set()
        assert await reader.read() == b""  # the end of the connection
        left.set()

    url = await serve(create_app(Settings(models={"poet": await raw_server(hold)})))
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        location = await submit(client)
        await asyncio.wait_for(asked.wait(), LIMIT)
        assert (await client.delete(location)).json()["state"] == "cancelled"
        await asyncio.wait_for(left.wait(), LIMIT)


async def test_deleting_an_ended_job_forgets_it(front: Front, poet: Poet, slug: Slug) -> None:
    client = await front()
    cancelled, completed = await submit(client), await submit(client, key="k")
    await eventually(lambda: len(poet.asked) == 2)
    assert (await client.delete(cancelled)).json()["state"] == "cancelled"
    poet.finish.set()
    await ended(client, completed)
    for location in (cancelled, completed):
        deleted = await client.delete(location)
        assert (deleted.status_code, deleted.content) == (204, b"")
        for method, headers in (("GET", {}), ("GET", LIVE), ("DELETE", {})):
            assert slug(await client.request(method, location, headers=headers)) == "not-found"
    assert await submit(client, {"prompt": "another"}, key="k") == completed, "the key is free again"


async def test_every_replica_serves_a_job(front: Front, poet: Poet, redis_url: str) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    location = await submit(one, key="k")
    watching = asyncio.create_task(watched(other, location))
    joining = asyncio.create_task(other.post("/generate", json=REQUEST, headers={"Idempotency-Key": "k"}))
    await eventually(lambda: poet.asked)
    await asyncio.sleep(0.05)
    poet.finish.set()
    names = [name for _, name, _ in await watching]
    assert names == ["status", "status", "token", "token", "result"]
    result = (await joining).json()
    assert [(await client.get(location)).json()["result"] for client in (one, other)] == [result, result]
    assert len(poet.asked) == 1


async def test_a_job_of_one_replica_is_cancelled_on_another(front: Front, poet: Poet, redis_url: str) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    location = await submit(one)
    await eventually(lambda: poet.asked)
    watching = asyncio.create_task(watched(one, location))
    assert (await other.delete(location)).json()["state"] == "cancelled"
    assert (await watching)[-1][1] == "error"
    assert (await one.get(location)).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("patience", "method", "path", "body", "headers"),
    [
        (PATIENCE, "POST", "/generate", REQUEST, {**ASYNC, **SHORT}),
        (PATIENCE, "POST", "/generate", REQUEST, {"Idempotency-Key": "k", **SHORT}),
        (PATIENCE, "POST", "/v1/responses", RESPONSE, SHORT),
        (PATIENCE, "POST", "/v1/responses", {**RESPONSE, "previous_response_id": f"resp_{'0' * 32}"}, SHORT),
        (1, "POST", "/generate", REQUEST, ASYNC),
        (1, "POST", "/v1/responses", RESPONSE, {}),
        (1, "GET", None, None, {}),
    ],
)
async def test_a_silent_store_is_a_503_in_time(
    front: Front,
    start_redis: Callable[..., Any],
    closed_port: int,
    tmp_path: Path,
    patience: float,
    method: str,
    path: str | None,
    body: dict[str, Any] | None,
    headers: dict[str, str],
) -> None:
    """It takes connections and answers nothing: web gives up after its patience, or the client's if that is less."""
    process = start_redis(closed_port, tmp_path)
    client = await front(store_url=f"redis://127.0.0.1:{closed_port}/0", store_patience_seconds=patience)
    job = await submit(client)
    process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        answer = await client.request(method, path or job, json=body, headers=headers)
        assert time.monotonic() - begun < redis_connection.ANSWER_SECONDS  # that is one attempt
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["type"] == "urn:shangcai:problem:unavailable"
    finally:
        process.send_signal(signal.SIGCONT)
