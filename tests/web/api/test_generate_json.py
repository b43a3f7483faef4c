"""The JSON answer of POST /generate, and what is forwarded to get it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from contract import TextResult

Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx2.Response]


async def test_a_prompt_becomes_a_text(web: Web) -> None:
    response = await web().post("/generate", json={"prompt": "春天的雨"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    TextResult.model_validate(document)
    assert re.fullmatch("[0-9a-f]{32}", document.pop("id"))
    timing = document.pop("timing")
    assert timing.keys() == {"queue_s", "first_token_s", "total_s"}
    assert timing["queue_s"] == 0.25
    assert 0 <= timing["first_token_s"] <= timing["total_s"]
    assert document == {
        "model": "poet",
        "kind": "text",
        "text": "春天",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


async def test_two_results_have_two_ids(web: Web) -> None:
    client = web()
    ids = {(await client.post("/generate", json={"prompt": "x"})).json()["id"] for _ in range(2)}
    assert len(ids) == 2


async def test_only_what_was_given_is_forwarded(web: Web, seen: list[httpx2.Request]) -> None:
    await web().post("/generate", json={"prompt": "春天的雨"})
    [request] = seen
    assert (request.method, str(request.url)) == ("POST", "http://poet.test/base/openai/v1/chat/completions")
    body = json.loads(request.content)
    assert 0 <= body.pop("seed") < 2**32  # drawn here: see web.rest.resumption
    assert body == {
        "model": "poet",
        "messages": [{"role": "user", "content": "春天的雨"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"seed": 0}, {"seed": 0}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ],
)
async def test_sampling_is_forwarded(
    web: Web, seen: list[httpx2.Request], given: dict[str, Any], forwarded: dict[str, Any]
) -> None:
    response = await web().post("/generate", json={"prompt": "x", **given})
    assert response.status_code == 200
    body = json.loads(seen[0].content)
    fixed = {"model", "messages", "stream", "stream_options"} | {"seed"} - given.keys()
    assert {name: value for name, value in body.items() if name not in fixed} == forwarded


async def test_each_request_has_a_seed_of_its_own(web: Web, seen: list[httpx2.Request]) -> None:
    client = web()
    for _ in range(2):
        await client.post("/generate", json={"prompt": "x", "seed": None})
    one, other = (json.loads(request.content)["seed"] for request in seen)
    assert one != other


async def test_a_named_model_is_asked_at_its_own_server(web: Web, seen: list[httpx2.Request]) -> None:
    response = await web().post("/generate", json={"prompt": "x", "model": "novelist"})
    assert response.json()["model"] == "novelist"
    assert seen[0].url.host == "novelist.test"
    assert json.loads(seen[0].content)["model"] == "novelist"


async def test_trace_headers_and_request_id_are_passed_on(web: Web, seen: list[httpx2.Request]) -> None:
    given = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=value, other=one",
        "X-Request-Id": "order-66",
    }
    response = await web().post("/generate", json={"prompt": "x"}, headers=given)
    assert response.headers["x-request-id"] == "order-66"
    assert {name: seen[0].headers[name] for name in given} == given


async def test_other_headers_are_not_passed_on(web: Web, seen: list[httpx2.Request]) -> None:
    await web().post("/generate", json={"prompt": "x"}, headers={"Authorization": "Bearer s", "Cookie": "a=b"})
    assert not {"authorization", "cookie"} & seen[0].headers.keys()
    assert seen[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("given", [b"", b"with space", b"x" * 129, "café".encode(), b"\xff", None])
async def test_an_unusable_request_id_is_replaced(web: Web, seen: list[httpx2.Request], given: bytes | None) -> None:
    headers = {} if given is None else {b"X-Request-Id": given}
    response = await web().post("/generate", json={"prompt": "x"}, headers=headers)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert seen[0].headers["x-request-id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("given", [b"\xff", b"x" * 513, "é".encode()])
async def test_an_unusable_trace_header_is_dropped(web: Web, seen: list[httpx2.Request], given: bytes) -> None:
    response = await web().post("/generate", json={"prompt": "x"}, headers={b"traceparent": given})
    assert response.status_code == 200
    assert "traceparent" not in seen[0].headers


async def test_a_runtime_without_queue_times_gives_null(web: Web, stream: Stream, sse_answer: Answer) -> None:
    response = await web(lambda _: sse_answer(stream("x"))).post("/generate", json={"prompt": "x"})
    assert response.json()["timing"]["queue_s"] is None


async def test_a_text_cut_by_max_tokens_says_so(web: Web, stream: Stream, sse_answer: Answer) -> None:
    client = web(lambda _: sse_answer(stream("x", finish_reason="length")))
    assert (await client.post("/generate", json={"prompt": "x"})).json()["finish_reason"] == "length"


async def test_an_empty_text_is_a_result(web: Web, stream: Stream, sse_answer: Answer) -> None:
    document = (await web(lambda _: sse_answer(stream())).post("/generate", json={"prompt": "x"})).json()
    assert document["text"] == ""
    assert document["timing"]["first_token_s"] == document["timing"]["total_s"]


async def test_a_stream_without_done_but_whole_is_a_result(web: Web, stream: Stream, sse_answer: Answer) -> None:
    response = await web(lambda _: sse_answer(stream("x", done=False))).post("/generate", json={"prompt": "x"})
    assert response.json()["text"] == "x"


async def test_a_stream_may_be_cut_anywhere(web: Web, stream: Stream, sse_answer: Answer) -> None:
    whole = b": heartbeat\n\n" + stream("春", "\n", "天") + b": heartbeat\n\n"
    parts = [whole[at : at + 1] for at in range(len(whole))]
    response = await web(lambda _: sse_answer(*parts)).post("/generate", json={"prompt": "x"})
    assert response.json()["text"] == "春\n天"


async def test_members_of_another_runtime_are_ignored(web: Web, sse_answer: Answer) -> None:
    """As vLLM streams a reasoning model: logprobs, null usages, token details, reasoning_content."""
    chunks: list[dict[str, Any]] = [
        {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": None},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "logprobs": None}], "usage": None},
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "y"}, "finish_reason": "stop", "stop_reason": None}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "details": None}},
    ]
    parts = [f"data: {json.dumps(chunk)}\r\n\r\n".encode() for chunk in chunks]
    document = (await web(lambda _: sse_answer(*parts)).post("/generate", json={"prompt": "x"})).json()
    assert document["text"] == "xy"
    assert document["reasoning_content"] == "hm"
    assert document["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, None),
        ({"thinking": None}, None),
        ({"thinking": True}, {"enable_thinking": True, "thinking": True}),
        ({"thinking": False}, {"enable_thinking": False, "thinking": False}),
    ],
)
async def test_thinking_becomes_variables_of_the_chat_template(
    web: Web, seen: list[httpx2.Request], fields: dict[str, Any], sent: dict[str, bool] | None
) -> None:
    await web().post("/generate", json={"prompt": "x"} | fields)
    body = json.loads(seen[0].content)
    assert body.get("chat_template_kwargs") == sent
    assert ("chat_template_kwargs" in body) == (sent is not None), "older predictors do not take it"


@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/*", "", "text/html, */*;q=0.1"])
async def test_json_is_the_default_form(web: Web, accept: str) -> None:
    response = await web().post("/generate", json={"prompt": "x"}, headers={"Accept": accept})
    assert response.headers["content-type"] == "application/json"


async def test_the_media_type_may_have_parameters(web: Web) -> None:
    headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    response = await web().post("/generate", content=b'{"prompt":"x"}', headers=headers)
    assert response.status_code == 200
