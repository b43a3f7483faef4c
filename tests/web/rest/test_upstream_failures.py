"""Whatever a model server does wrong, the client gets a problem document and learns nothing of the server's address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest

from contract import problems
from tests.support.wire.instances import without_instance
from web.client.failures import MESSAGE_CHARS
from web.rest.text_call import EVENT_BYTES

Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx2.Response]
Slug = Callable[[httpx2.Response], str]
Ask = Callable[..., Any]


@pytest.fixture
def ask(web: Web, slug: Slug, caplog: pytest.LogCaptureFixture) -> Ask:
    """The status, problem and detail that a client gets; the address goes to the log only."""

    async def run(handler: Callable[[httpx2.Request], httpx2.Response], **settings: Any) -> tuple[int, str, str]:
        response = await web(handler, **settings).post("/generate", json={"prompt": "x"})
        name = slug(response)
        assert "poet.test" not in response.text
        assert "http://poet.test/base" in caplog.text
        return response.status_code, name, response.json()["detail"]

    return run


def raising(error: Exception) -> Callable[[httpx2.Request], httpx2.Response]:
    def handler(_request: httpx2.Request) -> httpx2.Response:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (httpx2.ConnectError("[Errno 111] poet.test refused"), 503, "unavailable"),
        (httpx2.ConnectError("[Errno -2] Name or service not known"), 503, "unavailable"),
        (httpx2.ConnectTimeout("poet.test"), 503, "unavailable"),
        # anyio's, of a server that dies just when it has taken the connection
        (AttributeError("'NoneType' object has no attribute 'getpeername'"), 503, "unavailable"),
        (OSError(107, "Transport endpoint is not connected"), 503, "unavailable"),
        (httpx2.PoolTimeout(""), 503, "overloaded"),
        (httpx2.ReadTimeout(""), 504, "upstream-timeout"),
        (httpx2.WriteTimeout(""), 504, "upstream-timeout"),
        (httpx2.ReadError("[Errno 104] Connection reset by peer"), 502, "bad-upstream"),
        (httpx2.WriteError(""), 502, "bad-upstream"),
        (httpx2.RemoteProtocolError("Server disconnected"), 502, "bad-upstream"),
        (httpx2.DecodingError("poet.test"), 502, "bad-upstream"),
    ],
)
async def test_transport_failures(ask: Ask, error: Exception, status: int, name: str) -> None:
    assert (await ask(raising(error)))[:2] == (status, name)


@pytest.mark.parametrize("error", [httpx2.ConnectError(""), httpx2.PoolTimeout("")])
async def test_a_transient_failure_has_a_retry_after(web: Web, error: Exception) -> None:
    response = await web(raising(error)).post("/generate", json={"prompt": "x"})
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("status", "problem_status", "name"),
    [
        (204, 502, "bad-upstream"),
        (302, 502, "refused-upstream"),
        (400, 400, "invalid-field"),
        (401, 502, "refused-upstream"),
        (404, 502, "refused-upstream"),
        (408, 502, "bad-upstream"),
        (405, 502, "refused-upstream"),
        (413, 400, "invalid-field"),
        (415, 502, "refused-upstream"),
        (422, 400, "invalid-field"),
        (429, 503, "overloaded"),
        (500, 502, "bad-upstream"),
        (502, 502, "bad-upstream"),
        (503, 503, "overloaded"),
        (504, 504, "upstream-timeout"),
    ],
)
async def test_statuses(ask: Ask, status: int, problem_status: int, name: str) -> None:
    found = await ask(
        lambda _: httpx2.Response(status, content=b"<html>", headers={"Location": "http://elsewhere.test"})
    )
    assert found[:2] == (problem_status, name)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long for the context", "type": "BadRequestError", "code": 400}},
        {"error": "too long for the context"},
        {"message": "too long for the context"},
        {"detail": "too long for the context"},
    ],
)
async def test_the_reason_of_a_refusal_is_passed_on(ask: Ask, body: dict[str, Any]) -> None:
    _, _, detail = await ask(lambda _: httpx2.Response(400, json=body))
    assert detail == "The model server refused the request: too long for the context"


async def test_an_endless_reason_is_cut(ask: Ask) -> None:
    _, _, detail = await ask(lambda _: httpx2.Response(400, json={"error": {"message": "x" * 50_000}}))
    assert detail.removeprefix("The model server refused the request: ") == "x" * (MESSAGE_CHARS - 1) + "…"


async def test_an_endless_refusal_is_not_read_to_its_end(ask: Ask) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 10_000

    assert (await ask(lambda _: httpx2.Response(500, content=endless())))[:2] == (502, "bad-upstream")


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [("7", "7"), ("0", "1"), ("999999", "3600"), ("-3", "5"), ("soon", "5"), ("9" * 5000, "5"), ("", "5")],
)
async def test_a_sane_retry_after_is_passed_on(web: Web, given: str, passed_on: str) -> None:
    client = web(lambda _: httpx2.Response(503, headers={"Retry-After": given}))
    response = await client.post("/generate", json={"prompt": "x"})
    assert response.headers["retry-after"] == passed_on


FULL = {
    "type": "urn:shangcai:problem:overloaded",
    "title": "The server is full",
    "status": 503,
    "detail": "9 requests wait",
    "retry_after": 9,
    "waiting": 9,
}


async def test_a_problem_of_our_predictor_is_passed_on(web: Web, slug: Slug) -> None:
    body = {**FULL, "error": {"message": "9 requests wait", "code": "overloaded"}}
    client = web(lambda _: httpx2.Response(503, json=body, headers={"Content-Type": "application/problem+json"}))
    response = await client.post("/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (503, "overloaded")
    assert without_instance(response) == FULL
    assert response.headers["retry-after"] == "9"


async def test_the_retry_after_header_counts_where_the_problem_has_none(web: Web) -> None:
    body = {name: value for name, value in FULL.items() if name != "retry_after"}
    client = web(lambda _: httpx2.Response(503, json=body, headers={"Retry-After": "4"}))
    response = await client.post("/generate", json={"prompt": "x"})
    assert response.headers["retry-after"] == "4"


async def test_field_errors_of_our_predictor_are_passed_on(web: Web, slug: Slug) -> None:
    body = {
        "type": problems.INVALID_FIELD.uri,
        "title": problems.INVALID_FIELD.title,
        "status": 400,
        "detail": "prompt: has 600 tokens; the model reads 512",
        "errors": [{"field": "prompt", "detail": "has 600 tokens; the model reads 512"}],
    }
    response = await web(lambda _: httpx2.Response(400, json=body)).post("/generate", json={"prompt": "x"})
    assert slug(response) == "invalid-field"
    assert without_instance(response) == body


@pytest.mark.parametrize(
    ("body", "upstream", "client"),
    [
        ({"prompt": "x"}, "messages", "prompt"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages", "messages"),
        ({"prompt": "x", "raw": True, "top_logprobs": 1}, "logprobs", "top_logprobs"),
        ({"prompt": "x", "model": "painter"}, "output_format", "format"),
        ({"prompt": "x", "model": "painter"}, "partial_images", "previews"),
        ({"prompt": "x", "thinking": True}, "chat_template_kwargs", "thinking"),
        ({"prompt": "x", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs", "chat_template_kwargs"),
    ],
)
async def test_a_field_has_the_name_that_the_client_knows(
    web: Web, body: dict[str, Any], upstream: str, client: str
) -> None:
    errors = [{"field": upstream, "detail": "has 300 tokens; the model's context holds 256"}]
    problem = {"type": problems.INVALID_FIELD.uri, "title": "x", "status": 400, "detail": "x", "errors": errors}
    response = await web(lambda _: httpx2.Response(400, json=problem)).post("/generate", json=body)
    assert response.json()["errors"] == [{**errors[0], "field": client}]
    assert response.json()["detail"] == f"{client}: has 300 tokens; the model's context holds 256"


async def test_a_problem_type_that_is_newer_than_this_server_is_passed_on(web: Web, slug: Slug) -> None:
    body = {"type": "urn:shangcai:problem:on-fire", "title": "Hot", "status": 503, "detail": "The stove burns."}
    response = await web(lambda _: httpx2.Response(503, json=body)).post("/generate", json={"prompt": "x"})
    assert (response.status_code, slug(response)) == (503, "on-fire")
    assert without_instance(response) == body


@pytest.mark.parametrize(
    "kind", [problems.NOT_FOUND, problems.MALFORMED_BODY, problems.METHOD_NOT_ALLOWED, problems.UNSUPPORTED_MEDIA_TYPE]
)
async def test_a_problem_about_our_own_request_is_not_the_clients(ask: Ask, kind: problems.ProblemType) -> None:
    body = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": "poet.test"}
    assert (await ask(lambda _: httpx2.Response(kind.status, json=body)))[:2] == (502, "refused-upstream")


@pytest.mark.parametrize("status", [200, 700, -1])
async def test_a_problem_with_an_impossible_status_is_garbage(ask: Ask, status: int) -> None:
    body = {**FULL, "status": status}
    assert (await ask(lambda _: httpx2.Response(500, json=body)))[:2] == (502, "bad-upstream")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (json.dumps({**FULL, "type": "urn:shangcai:problem:on-fire", "error": {"message": "m"}}), "on-fire"),
        (json.dumps({"error": {"message": "CUDA out of memory at poet.test", "code": 500}}), "bad-upstream"),
        ("{", "bad-upstream"),
        ("[]", "bad-upstream"),
        ('{"choices": 3}', "bad-upstream"),
        ('{"choices": [{"index": 0}]}', "bad-upstream"),
        ('{"choices": [{"delta": {"content": 3}}]}', "bad-upstream"),
        ('{"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 0}}', "bad-upstream"),
        ('{"choices": [], "timing": {"queue_s": NaN}}', "bad-upstream"),
        ('{"choices": [{"delta": {"content": "\\ud800"}}]}', "bad-upstream"),
        ("\xff", "bad-upstream"),
    ],
)
async def test_events_that_are_no_chunks(ask: Ask, sse_answer: Answer, stream: Stream, data: str, name: str) -> None:
    start = stream("x", finish_reason=None, usage=None, done=False)
    answer = f"data: {data}\n\n".encode("latin-1") + b"data: [DONE]\n\n"
    assert (await ask(lambda _: sse_answer(start, answer)))[1] == name


@pytest.mark.parametrize(
    "left_out",
    [
        {"finish_reason": None},
        {"usage": None},
        {"finish_reason": "tool_calls"},
        {"finish_reason": None, "usage": None, "done": False},
    ],
)
async def test_a_text_that_is_not_whole_is_no_result(
    ask: Ask, sse_answer: Answer, stream: Stream, left_out: dict[str, Any]
) -> None:
    assert (await ask(lambda _: sse_answer(stream("x", **left_out))))[:2] == (502, "bad-upstream")


async def test_a_text_that_a_filter_keeps_back(
    ask: Ask, sse_answer: Answer, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    """The same request would end so again: 4xx, so that nobody tries."""
    caplog.set_level("INFO")
    found = await ask(lambda _: sse_answer(stream("x", finish_reason="content_filter")))
    assert found[:2] == (422, "content-filtered")


async def test_an_empty_stream(ask: Ask, sse_answer: Answer) -> None:
    assert (await ask(lambda _: sse_answer()))[:2] == (502, "bad-upstream")


@pytest.mark.parametrize("content_type", ["application/json", "text/html", ""])
async def test_a_200_that_is_no_stream(ask: Ask, content_type: str) -> None:
    answer = httpx2.Response(200, headers={"Content-Type": content_type}, content=b"{}")
    assert (await ask(lambda _: answer))[:2] == (502, "bad-upstream")


async def test_a_line_without_end(ask: Ask, sse_answer: Answer) -> None:
    parts = [b"data: "] + [b"x" * 100_000] * (EVENT_BYTES // 100_000 + 1)
    assert (await ask(lambda _: sse_answer(*parts)))[:2] == (502, "bad-upstream")


async def test_a_stream_without_end(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b": heartbeat\n\n" * 100

    monkeypatch.setattr("web.rest.text_call.ANSWER_BYTES", 100_000)
    answer = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=endless())
    assert (await ask(lambda _: answer))[:2] == (502, "bad-upstream")


async def test_heartbeats_do_not_outlast_the_time_for_a_generation(ask: Ask) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b": heartbeat\n\n"
            await asyncio.sleep(0.01)

    answer = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=endless())
    assert (await ask(lambda _: answer, generate_seconds=0.1))[:2] == (504, "too-late")


async def test_an_end_that_never_comes_does_not_hold_the_result(
    web: Web, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def content() -> AsyncGenerator[bytes]:
        yield stream("x")
        await asyncio.Event().wait()

    monkeypatch.setattr("web.client.exchange.DRAIN_SECONDS", 0.05)
    answer = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())
    assert (await web(lambda _: answer).post("/generate", json={"prompt": "x"})).json()["text"] == "x"
