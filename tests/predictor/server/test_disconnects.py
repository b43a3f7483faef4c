"""A client that leaves frees its slot, and nobody waits for anybody else's generation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import httpx2
import pytest

from contract import problems
from contract.problems import ProblemError
from tests.support.waiting import eventually

CHAT = ("/openai/v1/chat/completions", {"model": "poet", "messages": [{"role": "user", "content": "moon"}]})
CHAT_STREAM = (CHAT[0], CHAT[1] | {"stream": True})
PREDICT = ("/v1/models/poet:predict", {"instances": [{"prompt": "moon"}, {"prompt": "rain"}]})
INFER = (
    "/v2/models/poet/infer",
    {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [2], "data": ["moon", "rain"]}]},
)
EVERY_WAY = pytest.mark.parametrize(
    ("path", "body", "tasks"),
    [(*CHAT, 1), (*CHAT_STREAM, 1), (*PREDICT, 2), (*INFER, 2)],
    ids=["chat", "chat stream", "v1", "v2"],
)


def raw_request(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@EVERY_WAY
@pytest.mark.parametrize("leave", [methodcaller("abort"), methodcaller("close")], ids=["reset", "closed"])
async def test_leaving_closes_every_generation_of_the_request(
    server: Any, path: str, body: dict[str, Any], tasks: int, leave: Callable[[asyncio.WriteTransport], None]
) -> None:
    gate = asyncio.Event()
    for _ in range(tasks):
        server.engine.enqueue("first", gate, "never heard")
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(raw_request(path, body))
    await eventually(lambda: len(server.engine.generations) == tasks)
    assert server.engine.closed == [False] * tasks

    leave(writer.transport)

    await eventually(lambda: server.engine.closed == [True] * tasks)


@EVERY_WAY
async def test_the_server_goes_on_answering_while_generations_are_held(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any], tasks: int
) -> None:
    gate = asyncio.Event()
    for _ in range(tasks):
        engine.enqueue("first", gate, "last")
    held = asyncio.create_task(client.post(path, json=body))
    await eventually(lambda: len(engine.generations) == tasks)

    assert (await client.get("/v2/health/ready")).status_code == 200
    assert (await client.get("/metrics")).status_code == 200
    engine.enqueue("another")
    assert "another" in (await client.post(CHAT[0], json=CHAT[1])).text
    assert not held.done()

    gate.set()
    answer = await held
    assert answer.status_code == 200
    assert "last" in answer.text


@pytest.mark.parametrize(("path", "body"), [PREDICT, INFER])
async def test_one_prompt_that_fails_ends_the_others(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.enqueue("first", asyncio.Event(), "never heard")
    engine.enqueue(ProblemError(problems.INTERNAL, "The model failed on this request."))

    answer = await client.post(path, json=body)

    assert answer.status_code == 500
    assert answer.json()["error"] == "The model failed on this request."
    assert engine.closed == [True, True]


async def test_a_hundred_that_leave_leave_nothing_behind(server: Any) -> None:
    for turn in range(100):
        server.engine.enqueue("first", asyncio.Event())
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(raw_request(*(CHAT_STREAM if turn % 2 else PREDICT_ONE)))
        await eventually(lambda: len(server.engine.generations) == turn + 1)  # noqa: B023  awaited in its turn
        writer.transport.abort()

    await eventually(lambda: all(server.engine.closed))
    server.engine.enqueue("still here")
    async with httpx2.AsyncClient(base_url=server.url) as client:
        assert "still here" in (await client.post(CHAT[0], json=CHAT[1])).text


PREDICT_ONE = ("/v1/models/poet:predict", {"instances": [{"prompt": "moon"}]})


async def test_requests_sent_ahead_are_answered_in_order(server: Any) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    server.engine.enqueue(first, "one")
    server.engine.enqueue(second, "two")
    second.set()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

    writer.write(raw_request(*PREDICT_ONE) * 2)
    first.set()
    received = b""
    async with asyncio.timeout(60):
        while b"two" not in received:
            chunk = await reader.read(65_536)
            assert chunk, received
            received += chunk

    assert received.index(b"one") < received.index(b"two")
    assert received.count(b"HTTP/1.1 200 OK") == 2
    writer.close()
    await writer.wait_closed()
