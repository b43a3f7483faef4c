"""The server-sent events of POST /generate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from contract import problems
from web.app import create_app
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Stream = Callable[..., bytes]
Answer = Callable[..., httpx2.Response]
Serve = Callable[..., Awaitable[str]]
Events = Callable[[str], list[tuple[str, Any]]]

LIVE = {"prompt": "x", "stream": True}


async def test_events_come_in_order_and_end_with_the_result(web: Web, events: Events) -> None:
    response = await web().post("/generate", json={"prompt": "x"}, headers={"Accept": "text/event-stream"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"]
    found = events(response.text)
    result = found[-1][1]
    assert found == [
        ("status", {"state": "queued"}),
        ("status", {"state": "running"}),
        ("token", {"text": "春"}),
        ("token", {"text": "天"}),
        (
            "result",
            {
                "id": result["id"],
                "model": "poet",
                "kind": "text",
                "text": "春天",
                "finish_reason": "stop",
                "usage": {"prompt_tokens": 7, "completion_tokens": 3},
                "timing": {**result["timing"], "queue_s": 0.25},
            },
        ),
    ]


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
async def test_reasoning_has_events_of_its_own(
    web: Web, events: Events, stream: Stream, sse_answer: Answer, member: str
) -> None:
    plain = stream("hm, ", "so", "春", "天")
    for piece in ("hm, ", "so"):
        plain = plain.replace(f'"content": "{piece}"'.encode(), f'"{member}": "{piece}"'.encode())
    response = await web(lambda _: sse_answer(plain)).post("/generate", json=LIVE | {"thinking": True})
    found = events(response.text)
    assert found[2:-1] == [
        ("reasoning", {"text": "hm, "}),
        ("reasoning", {"text": "so"}),
        ("token", {"text": "春"}),
        ("token", {"text": "天"}),
    ]
    assert (found[-1][1]["text"], found[-1][1]["reasoning_content"]) == ("春天", "hm, so")


async def test_a_text_cut_within_its_reasoning_is_empty(
    web: Web, events: Events, stream: Stream, sse_answer: Answer
) -> None:
    plain = stream("hm", finish_reason="length").replace(b'"content": "hm"', b'"reasoning_content": "hm"')
    response = await web(lambda _: sse_answer(plain)).post("/generate", json=LIVE)
    result = events(response.text)[-1][1]
    assert (result["text"], result["reasoning_content"], result["finish_reason"]) == ("", "hm", "length")


async def test_a_result_keeps_its_nulls(web: Web, events: Events, stream: Stream, sse_answer: Answer) -> None:
    response = await web(lambda _: sse_answer(stream("x"))).post("/generate", json=LIVE)
    assert events(response.text)[-1][1]["timing"]["queue_s"] is None


@pytest.mark.parametrize("accept", ["application/json", "image/png", "*/*"])
async def test_stream_true_outweighs_accept(web: Web, accept: str) -> None:
    response = await web(models={"poet": "http://poet.test"}).post("/generate", json=LIVE, headers={"Accept": accept})
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_each_token_is_sent_as_it_comes(serve: Serve, stream: Stream) -> None:
    """The model server sends its second piece only after the client has the first."""
    received = asyncio.Event()

    async def content() -> AsyncGenerator[bytes]:
        whole = stream("first", "second")
        cut = whole.index(b"data", whole.index(b"first"))
        yield whole[:cut]
        await asyncio.wait_for(received.wait(), 10)
        yield whole[cut:]

    def poet(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    url = await serve(create_app(Settings(models={"poet": "http://poet.test"}), httpx2.MockTransport(poet)))
    seen = []
    async with (
        httpx2.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{url}/generate", json=LIVE) as response,
    ):
        async for line in response.aiter_lines():
            seen.append(line)
            if line == 'data: {"text":"first"}':
                received.set()
    assert "event: result" in seen


async def test_heartbeats_fill_the_silence(web: Web, stream: Stream) -> None:
    async def content() -> AsyncGenerator[bytes]:
        whole = stream("x")
        yield whole[:10]
        await asyncio.sleep(0.2)  # the silence itself
        yield whole[10:]

    def poet(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    response = await web(poet, heartbeat_seconds=0.02).post("/generate", json=LIVE)
    queued, rest = response.text.split("\n\n", 1)
    assert queued == 'event: status\ndata: {"state":"queued"}'
    assert rest.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert "event: result" in rest


async def test_a_failure_before_the_stream_has_its_own_status(web: Web, slug: Callable[[httpx2.Response], str]) -> None:
    response = await web(lambda _: httpx2.Response(500)).post("/generate", json=LIVE)
    assert (response.status_code, slug(response)) == (502, "bad-upstream")


async def test_a_failure_within_the_stream_is_its_last_event(
    web: Web, events: Events, stream: Stream, sse_answer: Answer
) -> None:
    broken = stream("x", finish_reason=None, usage=None, done=False)
    response = await web(lambda _: sse_answer(broken)).post("/generate", json=LIVE, headers={"X-Request-Id": "mine"})
    assert response.status_code == 200
    assert [name for name, _ in events(response.text)] == ["status", "status", "token", "error"]
    assert events(response.text)[-1][1] == {
        "type": "urn:shangcai:problem:bad-upstream",
        "title": "The model server gave no usable answer",
        "status": 502,
        "detail": "The model server's answer cannot be used.",
        "instance": "urn:shangcai:request:mine",
    }


async def test_an_exception_within_the_stream_is_its_last_event(
    web: Web, events: Events, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("secret")

    monkeypatch.setattr("web.rest.text_result.TextResultBuilder.add", broken)
    response = await web().post("/generate", json=LIVE)
    name, problem = events(response.text)[-1]
    assert (name, problem["type"]) == ("error", problems.INTERNAL.uri)
    assert "secret" not in response.text
    assert "secret" in caplog.text
