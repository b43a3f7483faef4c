"""Clients of any kind: those that offer HTTP/2, that speak HTTP/1.0 or nonsense, that half close their connection."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract.cloudevents import REQUESTED
from tests.support.waiting import SECONDS, eventually
from tests.support.wire.raw_answers import JAVA, exchange

CHAT = ("/openai/v1/chat/completions", {"model": "poet", "messages": [{"role": "user", "content": "moon"}]})
ROUTES = {
    "chat": CHAT,
    "chat stream": (CHAT[0], CHAT[1] | {"stream": True}),
    "completions": ("/openai/v1/completions", {"model": "poet", "prompt": "moon"}),
    "v1": ("/v1/models/poet:predict", {"instances": [{"prompt": "moon"}]}),
    "v2": (
        "/v2/models/poet/infer",
        {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["moon"]}]},
    ),
    "event": ("/", {"prompt": "moon"}),
}
EVERY_ROUTE = pytest.mark.parametrize(("path", "body"), ROUTES.values(), ids=ROUTES)
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": REQUESTED}
EVENT_FIELDS = "".join(f"{name}: {value}\r\n" for name, value in EVENT.items())


def post(path: str, body: Any, fields: str = "", version: str = "1.1") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\n{fields}{EVENT_FIELDS if path == '/' else ''}Host: x\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def needed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        assert not os.environ.get("CI"), f"in CI there is {program}"
        pytest.skip(f"there is no {program}")
    return path


async def output(*command: str | Path) -> str:
    """What a command says on both of its outputs. It must succeed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, out.decode()
    return out.decode()


@EVERY_ROUTE
async def test_an_offer_of_http2_keeps_its_body(server: Any, path: str, body: Any) -> None:
    server.engine.enqueue("spring rain")
    head, answer = await exchange(server.url, post(path, body, JAVA.decode() + "Connection: close\r\n"))
    assert head.startswith("200 OK\r\n")
    assert b"spring rain" in answer


@EVERY_ROUTE
async def test_curl_that_offers_http2(server: Any, path: str, body: Any) -> None:
    curl = needed("curl")
    if "HTTP2" not in await output(curl, "--version"):
        pytest.fail("this curl knows no HTTP/2") if os.environ.get("CI") else pytest.skip("this curl knows no HTTP/2")
    server.engine.enqueue("spring rain")
    fields = [f"-H{name}: {value}" for name, value in {**EVENT, "Content-Type": "application/json"}.items()]
    if path != "/":
        fields = fields[-1:]
    answer = await output(curl, "-sS", "--http2", *fields, "-d", json.dumps(body), server.url + path)
    assert "spring rain" in answer


@pytest.mark.slow
async def test_the_client_of_javas_standard_library(server: Any, tmp_path: Path) -> None:
    java = needed("java")
    server.engine.enqueue("spring rain")
    server.engine.enqueue("autumn wind")
    (tmp_path / "body.json").write_text(json.dumps(CHAT[1]))
    source = Path(__file__).with_name("AnyClient.java")
    first, second = (await output(java, source, server.url + CHAT[0], tmp_path / "body.json")).splitlines()
    assert first.startswith("200 HTTP_1_1 ")
    assert "spring rain" in first
    assert second.startswith("200 HTTP_1_1 ")
    assert "autumn wind" in second


@EVERY_ROUTE
async def test_a_client_that_has_shut_down_its_side(server: Any, path: str, body: Any) -> None:
    gate = asyncio.Event()
    server.engine.enqueue(gate, "spring rain")
    asking = asyncio.create_task(exchange(server.url, post(path, body), half_close=True))
    await eventually(lambda: server.engine.generations)
    gate.set()
    head, answer = await asking
    assert head.startswith("200 OK\r\n")
    assert b"spring rain" in answer


async def test_a_stream_in_http10(server: Any) -> None:
    server.engine.enqueue("spring rain")
    path, body = ROUTES["chat stream"]
    head, answer = await exchange(server.url, post(path, body, version="1.0"))
    assert "transfer-encoding" not in head.lower()
    assert answer.startswith(b"data: {")
    assert answer.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"\x00\x01garbage", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 20_000), 431, "header-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501, "not-implemented"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "method-not-allowed"),
        (b"BREW /v2/models/poet/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "method-not-allowed"),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not-found"),
        (b"GET /v2/health/live/ HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", 404, "not-found"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not-found"),
    ],
    ids=["garbage", "header", "websocket", "method", "method of a route", "connect", "slash", "options"],
)
async def test_every_error_is_a_problem_document(
    server: Any, caplog: pytest.LogCaptureFixture, sent: bytes, status: int, slug: str
) -> None:
    head, answer = await exchange(server.url, sent)
    assert head.startswith(f"{status} ")
    assert "\r\ncontent-type: application/problem+json\r\n" in head.lower()
    assert "\r\nx-request-id: " in head.lower()
    document = json.loads(answer)
    assert document["type"] == f"urn:shangcai:problem:{slug}"
    assert document["error"] == document["detail"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_every_answer_names_its_request(
    client: httpx2.AsyncClient, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wire.request_context")
    engine.enqueue("spring")
    given = {"X-Request-Id": "mine-1"}
    for path, body in (CHAT, ("/openai/v1/chat/completions", {}), ("/nowhere", {})):
        answer = await client.post(path, json=body, headers=given)
        assert answer.headers["x-request-id"] == "mine-1"
        line = re.compile(f"POST '{path}' -> {answer.status_code} in .* s, client 127.0.0.1.*, request mine-1")
        await eventually(lambda: any(map(line.fullmatch, caplog.messages)))  # noqa: B023  awaited in its turn
    made = set()
    for bad in ("two words", "x" * 200):
        answer = await client.get("/v2/health/live", headers={"X-Request-Id": bad})
        made.add(answer.headers["x-request-id"])
    assert [len(name) for name in made] == [32, 32]
