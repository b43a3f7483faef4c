"""One line a request, in both forms, with the same keys in both servers."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from wire.request_context import RequestContextMiddleware
from wire.request_guard import RequestGuard
from wire.telemetry.facts import Facts, current_facts, gathered
from wire.telemetry.lines import log_run
from wire.telemetry.logs import LogFormat, set_up_logging

Log = Callable[..., list[str]]
TRACE = "a" * 32


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[LogFormat | None], io.StringIO]]:
    """Sets up the log of a server, and gives what is written to it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def begin(log_format: LogFormat | None) -> io.StringIO:
        root.handlers[:] = []
        errors = io.StringIO()
        monkeypatch.setattr(sys, "stderr", errors)
        set_up_logging("info", log_format)
        return errors

    yield begin
    root.handlers[:] = handlers
    root.setLevel(level)


async def poem(request: Request) -> Response:
    facts = current_facts()
    assert facts is not None
    facts.model, facts.route, facts.job_id = "poet", "/poems", "j1"
    facts.phases = {"queue": 0.25, "decode": 0.5}
    facts.first_token_seconds, facts.prompt_tokens, facts.completion_tokens = 0.25, 7, 3
    facts.generation_ended = facts.arrived
    request.scope["state"]["caller"] = "kitchen"
    logging.getLogger("poems").warning("no rhyme")
    return PlainTextResponse("春")


async def ask(path: str = "/poems", **headers: str) -> httpx2.Response:
    app = RequestContextMiddleware(Starlette(routes=[Route("/poems", poem, methods=["POST"])]))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web.test") as client:
        return await client.post(path, headers={"X-Request-Id": "r1", **headers}, content=b"secret")


async def test_a_line_is_an_object_with_the_ids_and_the_phases(written: Any) -> None:
    errors = written("json")
    await ask(traceparent=f"00-{TRACE}-{'b' * 16}-01")
    within, line = map(json.loads, errors.getvalue().splitlines())
    assert within["message"] == "no rhyme"
    assert within["level"] == "WARNING"
    assert within["logger"] == "poems"
    assert (within["request_id"], within["job_id"], within["trace_id"]) == ("r1", "j1", TRACE)
    assert 0 <= line.pop("seconds") < 60
    deliver = line["phases"].pop("deliver")
    assert deliver >= 0
    assert line.pop("message").startswith("POST '/poems' -> 200 in ")
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "wire.request_context",
        "request_id": "r1",
        "job_id": "j1",
        "trace_id": TRACE,
        "caller": "kitchen",
        "route": "/poems",
        "model": "poet",
        "method": "POST",
        "path": "/poems",
        "client": "127.0.0.1",
        "status": 200,
        "phases": {"queue": 0.25, "decode": 0.5},
        "first_token_seconds": 0.25,
        "prompt_tokens": 7,
        "completion_tokens": 3,
    }


async def test_text_says_whose_request_it_is_and_where_its_time_went(written: Any) -> None:
    errors = written("text")
    await ask()
    within, line = errors.getvalue().splitlines()
    assert within.endswith(" WARNING poems: no rhyme [job j1]")
    assert ", client 127.0.0.1, caller kitchen, model poet (queue 0.250 s, decode 0.500 s" in line
    assert line.endswith(", request r1")


async def test_a_path_fakes_no_line(written: Any) -> None:
    errors = written("text")
    await ask("/no%0Awhere")
    assert len(errors.getvalue().splitlines()) == 1


async def test_what_is_not_known_has_no_key(written: Any) -> None:
    errors = written("json")
    await ask("/nowhere")
    [line] = map(json.loads, errors.getvalue().splitlines())
    assert line["status"] == 404
    assert not {"job_id", "trace_id", "model", "phases", "problem", "prompt_tokens", "caller"} & set(line)


def test_a_traceback_is_one_text(written: Any) -> None:
    errors = written("json")
    try:
        raise ValueError("no ink")
    except ValueError:
        logging.getLogger("poems").exception("failed")
    [line] = map(json.loads, errors.getvalue().splitlines())
    assert line["message"] == "failed"
    assert line["error"].endswith("ValueError: no ink")


@pytest.mark.parametrize(("variables", "is_json"), [({}, False), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True)])
def test_the_form_is_that_of_the_place(
    written: Any, variables: dict[str, str], is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    errors = written(None)
    logging.getLogger("poems").info("a line")
    assert errors.getvalue().startswith("{") is is_json


def test_a_run_of_a_job_has_a_line(written: Any) -> None:
    errors = written("json")
    facts = Facts("r1", job_id="j1", caller="kitchen", model="poet", phases={"job_queue": 1.0})
    with gathered(facts):
        log_run(logging.getLogger("jobs"), facts, "completed", 2)
    [line] = map(json.loads, errors.getvalue().splitlines())
    assert line["message"].startswith("job j1 completed in attempt 2, ")
    assert (line["status"], line["attempts"], line["request_id"], line["job_id"]) == ("completed", 2, "r1", "j1")


async def test_a_client_that_leaves_has_one_line(written: Any) -> None:
    errors = written("json")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await receive()

    messages = iter([{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_message: Any) -> None:
        raise AssertionError("nobody is there")

    scope = {"type": "http", "method": "POST", "path": "/poems", "headers": [], "client": ("127.0.0.1", 1)}
    await RequestContextMiddleware(RequestGuard(app))(scope, receive, send)
    [line] = map(json.loads, errors.getvalue().splitlines())
    assert (line["status"], line["client_left"]) == (499, True)
    assert ", the client left, " in line["message"]
