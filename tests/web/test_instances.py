"""Problems of web name their request, and what is stored of a job names none."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from contract import Problem, problems
from contract.cloudevents import FAILED
from tests.support.events import Sink, about, deliver, ended, job_of, log_of, submit
from tests.support.wire.instances import PREFIX, without_instance
from web.app import create_app
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Opened = Callable[..., Awaitable[httpx2.AsyncClient]]
Events = Callable[[str], list[tuple[str, Any]]]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx2.Response]

MINE = PREFIX + "mine"
NAMED = {"X-Request-Id": "mine"}
USER = {"role": "user", "content": "moon"}
PAINTER = {"painter": {"url": "http://painter.test", "kind": "image"}}

THEIRS = {
    "type": problems.INVALID_FIELD.uri,
    "title": problems.INVALID_FIELD.title,
    "status": 400,
    "detail": "seed: is too large",
    "instance": PREFIX + "theirs",
    "errors": [{"field": "seed", "detail": "is too large"}],
}
"""Of a predictor, which names a request of its own."""

STORED = {name: value for name, value in THEIRS.items() if name != "instance"}


def refuse(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(400, json=THEIRS)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/generate", {"prompt": "x", "max_tokens": 0}, 400),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/generate", None, 405),
        ("POST", "/generate", {"prompt": "x" * 2_000}, 413),
        ("POST", "/v1/chat/completions", {"model": "bard", "messages": [USER]}, 404),
        ("GET", "/v1/nowhere", None, 404),
        ("POST", "/v1/responses", {"model": "poet", "input": ""}, 400),
        ("POST", "/events", {}, 400),
    ],
)
async def test_every_refusal_names_its_request(
    web: Web, method: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    answer = await web(body_bytes=1_000).request(method, path, json=body, headers=NAMED)
    assert (answer.status_code, answer.json()["instance"]) == (status, MINE), answer.text
    assert ("error" in answer.json()) == path.startswith("/v1/")


async def test_a_mistake_of_the_server_names_the_request(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("web.rest.text_result.TextResultBuilder.add", broken)
    answer = await web().post("/generate", json={"prompt": "x"}, headers=NAMED)
    assert (answer.status_code, answer.json()["instance"]) == (500, MINE)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "x"}),
        ("/v1/chat/completions", {"model": "poet", "messages": [USER]}),
        ("/v1/responses", {"model": "poet", "input": "x"}),
    ],
)
async def test_a_problem_that_is_passed_on_names_the_request_of_who_asked(
    opened: Opened, path: str, body: dict[str, Any]
) -> None:
    settings = Settings(models={"poet": "http://poet.test"})
    client = await opened(create_app(settings, httpx2.MockTransport(refuse)))
    answer = await client.post(path, json=body, headers=NAMED)
    assert (answer.status_code, answer.json()["instance"]) == (400, MINE)
    assert answer.json()["errors"] == STORED["errors"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "x", "stream": True}),
        ("/v1/chat/completions", {"model": "poet", "messages": [USER], "stream": True}),
    ],
)
async def test_the_error_of_a_stream_names_the_request(
    web: Web, stream: Stream, sse_answer: Answer, path: str, body: dict[str, Any]
) -> None:
    broken = stream("x", finish_reason=None, usage=None, done=False)
    answer = await web(lambda _: sse_answer(broken)).post(path, json=body, headers=NAMED)
    assert answer.status_code == 200
    last = json.loads(answer.text.rpartition("data: ")[2])
    assert (last["type"], last["instance"]) == (problems.BAD_UPSTREAM.uri, MINE)


async def test_a_stored_problem_is_the_same_for_all_who_ask(opened: Opened, events: Events) -> None:
    client = await opened(create_app(Settings(models=PAINTER), httpx2.MockTransport(refuse)))
    order = {"Idempotency-Key": "order-1"}
    job = await submit(client, order)
    assert (await ended(client, job))["error"] == STORED
    assert events(await log_of(client, job))[-1] == ("error", STORED)
    picture = await client.get(f"/generations/{job}", headers={"Accept": "image/png"})
    assert (picture.status_code, picture.headers["content-type"]) == (400, problems.MEDIA_TYPE)
    assert picture.json() == STORED
    for name in ("first", "second"):  # who orders it again is answered with it
        again = await client.post("/generate", json={"prompt": "春"}, headers=order | {"X-Request-Id": name})
        assert (again.json()["instance"], without_instance(again)) == (PREFIX + name, STORED)


async def test_a_failure_event_that_names_a_request_is_stored_without(opened: Opened, events: Events) -> None:
    settings = Settings(models={"poet": "http://poet.test"}, dispatch="events", k_sink="http://broker.test")
    client = await opened(create_app(settings, httpx2.MockTransport(Sink())))
    job = await submit(client)
    delivered = await deliver(client, about(job, FAILED, Problem.model_validate(THEIRS)))
    assert delivered.status_code < 300, delivered.text
    assert (await job_of(client, job))["error"] == STORED
    assert events(await log_of(client, job))[-1] == ("error", STORED)


async def test_the_log_line_names_a_problem_that_comes_without_an_instance(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    client = await opened(create_app(Settings(models=PAINTER), httpx2.MockTransport(refuse)))
    job = await submit(client)
    await ended(client, job)
    with caplog.at_level("INFO", "wire.request_context"):
        await client.get(f"/generations/{job}", headers={"Accept": "image/png"})
        await client.post("/", data={"prompt": "", "size": ""}, headers={"Accept": "text/html"})
    told = [getattr(record, "problem", None) for record in caplog.records if hasattr(record, "status")]
    assert told[-2:] == ["invalid-field"] * 2
