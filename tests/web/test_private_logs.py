"""What was asked and what was answered stands in no log, at whatever goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from contract import ProblemError, problems
from contract.problems import MEDIA_TYPE, PROBLEM_TYPES
from wire.telemetry.json_formatter import JsonLines

Front = Any
Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]

MARK = "persimmon"
"""In the prompt, and in whatever the model server says."""

EVENT_STREAM = {"Content-Type": "text/event-stream"}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that show what was asked or answered, with their tracebacks."""
    records = [record for record in caplog.records if record.levelno >= logging.INFO]
    lines = [form.format(record) for record in records for form in (logging.Formatter(), JsonLines())]
    assert lines
    return [line for line in lines if MARK in line]


def document(kind: problems.ProblemType) -> httpx2.Response:
    """A problem of our own predictor, which quotes."""
    body = ProblemError(kind, f"about {MARK}").document
    return httpx2.Response(kind.status, json=body, headers={"Content-Type": MEDIA_TYPE})


def failures() -> dict[str, httpx2.Response | Exception]:
    quoting = {"error": {"message": f"cannot write about {MARK}", "type": MARK}}
    chunk = {"choices": [{"index": 0, "delta": {"content": MARK}, "finish_reason": None}]}
    other = {"choices": [{"index": 0, "delta": {"content": MARK}, "finish_reason": MARK}]}

    def stream(*data: str) -> httpx2.Response:
        return httpx2.Response(200, headers=EVENT_STREAM, content="".join(f"data: {one}\n\n" for one in data))

    answers: dict[str, httpx2.Response | Exception] = {
        f"status {status}": httpx2.Response(status, json=quoting)
        for status in (302, 400, 401, 404, 413, 422, 429, 500, 502, 503, 504)
    }
    answers |= {kind.slug: document(kind) for kind in PROBLEM_TYPES if kind is not problems.LOADING}
    return answers | {
        "plain text": httpx2.Response(200, text=MARK),
        "no JSON": stream(MARK),
        "no chunk": stream(json.dumps({"choices": MARK})),
        "an error in the stream": stream(json.dumps(chunk), json.dumps(quoting)),
        "our problem in the stream": stream(json.dumps(chunk), json.dumps(document(problems.INTERNAL).json())),
        "no end": stream(json.dumps(chunk)),
        "no usage": stream(json.dumps(chunk), json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})),
        "another finish_reason": stream(json.dumps(other), "[DONE]"),
        "too long": stream(MARK * 1_000_000),
        "unreadable": httpx2.RemoteProtocolError(f"illegal chunk header: {MARK}"),
        "a broken connection": httpx2.ReadError(MARK),
        "silence": httpx2.ReadTimeout(MARK),
        "undecodable": httpx2.DecodingError(MARK),
    }


FAILURES = failures()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("body", [{}, {"stream": True}], ids=["json", "events"])
async def test_a_model_server_that_fails(
    web: Web, caplog: pytest.LogCaptureFixture, failure: str, body: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(_request: httpx2.Request) -> httpx2.Response:
        found = FAILURES[failure]
        if isinstance(found, Exception):
            raise found
        return httpx2.Response(found.status_code, headers=found.headers, content=found.content)

    client = web(answer, generate_seconds=1)
    for model in ("poet", "painter"):
        answered = await client.post("/generate", json={"prompt": f"a {MARK}", "model": model, **body})
        assert answered.status_code >= 400 or "event: error" in answered.text
    assert logged(caplog) == []


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=5"}, {"Idempotency-Key": "1"}], ids=["plain", "wait", "key"])
async def test_a_success_and_a_job(
    opened: Any, web: Web, caplog: pytest.LogCaptureFixture, stream: Stream, headers: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    transport = web(lambda _: httpx2.Response(200, headers=EVENT_STREAM, content=stream(MARK)))._transport
    assert isinstance(transport, httpx2.ASGITransport)
    client = await opened(transport.app)
    for body in ({}, {"stream": True}):
        answered = await client.post("/generate", json={"prompt": f"a {MARK}", **body}, headers=headers)
        assert MARK in answered.text
    assert logged(caplog) == []


async def test_a_job_that_fails(opened: Any, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    transport = web(lambda _: httpx2.Response(422, json={"error": MARK}))._transport
    assert isinstance(transport, httpx2.ASGITransport)
    client = await opened(transport.app)
    answered = await client.post("/generate", json={"prompt": MARK}, headers={"Prefer": "wait=20"})
    assert answered.status_code == 400
    assert logged(caplog) == []


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (f'{{"prompt": {{"{MARK}": 1}}}}', {}),
        (f'{{"prompt": "x", "{MARK}": 1}}', {}),
        (f'{{"prompt": "{MARK}', {}),
        (f'{{"prompt": "x", "model": "{MARK}"}}', {}),
        (MARK, {"Content-Type": "text/plain"}),
        (f'{{"prompt": "{MARK}"}}', {"X-Request-Timeout": MARK}),
        (f'{{"prompt": "{MARK}"}}', {"Accept": f"text/{MARK}"}),
        ('{"prompt": "x"}', {"Authorization": f"Bearer {MARK}", "X-Request-Timeout": "0"}),
        (f'{{"prompt": "x", "webhook": "https://hooks.test/?key={MARK}"}}', {"Prefer": "respond-async"}),
        (f'{{"prompt": "x", "model": "painter", "negative_prompt": "{MARK}", "steps": 0}}', {}),
    ],
)
async def test_a_request_that_is_refused(
    web: Web, caplog: pytest.LogCaptureFixture, content: str, headers: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    answered = await web().post("/generate", content=content, headers={"Content-Type": "application/json", **headers})
    assert answered.status_code >= 400
    assert logged(caplog) == []


async def test_our_own_mistake(web: Web, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback is logged, and pydantic's errors would quote what they refuse."""
    from contract import TextResult
    from web.rest.text_result import TextResultBuilder

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(TextResultBuilder, "result", lambda _: TextResult.model_validate({"text": MARK, "id": [MARK]}))
    answered = await web().post("/generate", json={"prompt": MARK})
    assert answered.status_code == 500
    assert "Traceback" in "".join(record.exc_text or "" for record in caplog.records)
    assert logged(caplog) == []
