"""A server that behaves as vLLM does (0.25): its routes, its key, its chunks, its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from contract import problems
from web.app import create_app
from web.rest.resumption import Attempts
from web.settings import Settings

Events = Callable[[str], list[tuple[str, Any]]]
Serve = Callable[[ASGIApp], Awaitable[str]]
Slug = Callable[[httpx2.Response], str]

KEY = "sk-vllm"
NAME = "Qwen/Qwen3-8B"


class Vllm:
    """Guards all below /v1 and /v2 by its key, and knows no readiness beside /health. It stops within the answer after
    so many chunks."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.stops_after: int | None = None

    @property
    def app(self) -> ASGIApp:
        routes = [
            Route("/health", self.guarded(lambda _: Response())),
            Route("/v1/models", self.guarded(self.models)),
            Route("/v1/chat/completions", self.guarded(self.chat), methods=["POST"]),
        ]
        return Starlette(routes=routes)

    @staticmethod
    def guarded(answer: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            if request.url.path.startswith(("/v1", "/v2")) and request.headers.get("authorization") != f"Bearer {KEY}":
                return JSONResponse({"error": "Unauthorized"}, 401)
            answered = answer(request)
            return await answered if asyncio.iscoroutine(answered) else answered  # type: ignore[no-any-return]

        return checked

    @staticmethod
    def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "vllm"}]})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if body["model"] != NAME:
            message = f"The model `{body['model']}` does not exist."
            return error(404, message, "NotFoundError", "model")
        if len(body["messages"][0]["content"]) > 100:
            return error(400, "This model's maximum context length is 8 tokens.", "BadRequestError", "input_tokens")
        return StreamingResponse(self.stream(), media_type="text/event-stream")

    async def stream(self) -> AsyncIterator[str]:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": NAME}
        decided = {"system_fingerprint": "vllm-0.25.0-0a1b2c3d"}  # on the last chunks alone

        def choice(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
            return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}]}

        chunks = [
            choice({"role": "assistant", "content": ""}),
            choice({"reasoning": "hm"}),
            choice({"content": "春"}, token_ids=None),
            choice({"content": "天"}, token_ids=None),
            {**choice({"content": ""}, finish_reason="stop", stop_reason=None), **decided},
            {
                **head,
                "choices": [],
                "usage": {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3},
                **decided,
            },
        ]
        for chunk in chunks[: self.stops_after]:
            yield f"data: {json.dumps(chunk)}\n\n"
        if self.stops_after is None:
            yield "data: [DONE]\n\n"


def error(status: int, message: str, kind: str, param: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


@pytest.fixture
def vllm() -> Vllm:
    return Vllm()


@pytest.fixture
async def client(serve: Serve, vllm: Vllm) -> AsyncIterator[httpx2.AsyncClient]:
    entry = {"url": await serve(vllm.app), "path": "/v1", "api_key": KEY, "upstream_model": NAME}
    url = await serve(create_app(Settings(models={"qwen": entry})))
    async with httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        yield client


async def test_a_text(client: httpx2.AsyncClient, vllm: Vllm) -> None:
    result = (await client.post("/generate", json={"prompt": "春", "seed": 3, "thinking": True})).json()
    assert (result["model"], result["text"], result["reasoning_content"]) == ("qwen", "春天", "hm")
    assert result["usage"] == {"prompt_tokens": 4, "completion_tokens": 3}
    assert result["system_fingerprint"] == "vllm-0.25.0-0a1b2c3d"
    assert (vllm.asked[0]["model"], vllm.asked[0]["seed"]) == (NAME, 3)


async def test_a_stream(client: httpx2.AsyncClient, events: Events) -> None:
    found = events((await client.post("/generate", json={"prompt": "春", "stream": True})).text)
    assert [name for name, _ in found if name != "status"] == ["reasoning", "token", "token", "result"]


async def test_it_is_found_ready_though_it_has_no_route_for_that(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/warm")).json()["state"] == "ready"


async def test_what_it_refuses_is_told_as_the_clients_mistake(client: httpx2.AsyncClient, slug: Slug) -> None:
    response = await client.post("/generate", json={"prompt": "x" * 101})
    assert slug(response) == "invalid-field"
    assert response.json()["detail"].endswith("This model's maximum context length is 8 tokens.")


@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 4, 5])
async def test_a_stream_that_it_cuts_off(
    client: httpx2.AsyncClient, vllm: Vllm, events: Events, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    """It says what has decided an answer only at the end: a text that has begun to arrive is not asked for again."""
    vllm.stops_after = chunks

    def whole_next_time(_seconds: float) -> float:
        vllm.stops_after = None
        return 0

    monkeypatch.setattr(Attempts, "pause", lambda self, _error: whole_next_time(self.seconds))
    found = events((await client.post("/generate", json={"prompt": "春", "stream": True})).text)
    if chunks in (2, 3, 4):
        assert (found[-1][0], found[-1][1]["type"]) == ("error", problems.BAD_UPSTREAM.uri)
    else:
        assert "".join(data["text"] for name, data in found if name == "token") == "春天"
        assert found[-1][0] == "result"
