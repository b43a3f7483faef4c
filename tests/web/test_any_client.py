"""Clients of any kind on a socket: those that offer HTTP/2, that speak HTTP/1.0 or nonsense, that half close."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.wire.raw_answers import JAVA, exchange
from web.app import create_app
from web.openai.problems import problem_responses
from web.settings import Settings

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LIMIT = 10.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def post(version: bytes = b"1.1", fields: bytes = b"", **body: Any) -> bytes:
    content = json.dumps({"prompt": "moon", **body}).encode()
    head = b"POST /generate HTTP/%s\r\nHost: x\r\nContent-Type: application/json\r\n%s" % (version, fields)
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(content), content)


@pytest.fixture
async def url(
    serve: Callable[..., Awaitable[str]],
    raw_server: Callable[[Connection], Awaitable[str]],
    stream: Callable[..., bytes],
) -> str:
    """Web on a socket, in front of a model server that answers after a moment."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)  # long enough for probes of a client that has half closed
        writer.write(HEAD + stream("spring ", "rain"))
        writer.close()

    return await serve(create_app(Settings(models={"poet": await raw_server(answer)})))


async def test_an_offer_of_http2_keeps_its_body(url: str) -> None:
    head, body = await exchange(url, post(fields=JAVA + b"Connection: close\r\n"))
    assert head.startswith("200 OK\r\n")
    assert json.loads(body)["text"] == "spring rain"


async def test_curl_that_offers_http2(url: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        assert not os.environ.get("CI"), "in CI there is curl"
        pytest.skip("there is no curl")
    command = [curl, "-sS", "--http2", "--json", json.dumps({"prompt": "moon"}), f"{url}/generate"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    assert json.loads(out)["text"] == "spring rain"


async def test_a_client_that_has_shut_down_its_side(url: str) -> None:
    head, body = await exchange(url, post(), half_close=True)
    assert head.startswith("200 OK\r\n")
    assert json.loads(body)["text"] == "spring rain"


async def test_a_stream_in_http10(url: str) -> None:
    head, body = await exchange(url, post(b"1.0", stream=True))
    assert head.startswith("200 OK\r\n")
    assert "transfer-encoding" not in head.lower()
    assert body.startswith(b"event: status\ndata: {")


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"\x00\x01garbage", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 20_000), 431, "header-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501, "not-implemented"),
        (b"BREW /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "method-not-allowed"),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not-found"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not-found"),
    ],
    ids=["garbage", "header", "websocket", "method", "connect", "options"],
)
async def test_every_error_is_a_problem_document(
    url: str, caplog: pytest.LogCaptureFixture, sent: bytes, status: int, slug: str
) -> None:
    head, body = await exchange(url, sent)
    assert head.startswith(f"{status} ")
    assert "\r\ncontent-type: application/problem+json\r\n" in head.lower()
    assert "\r\nx-request-id: " in head.lower()
    assert json.loads(body)["type"] == f"urn:shangcai:problem:{slug}"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", "invalid-field"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "not-implemented"),
        (b"GET /v1/models?a=b HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 20_000), "header-too-large"),
        (b"GET http://x/v1/models HTTP/1.1\r\nHost: x\r\nBad Name: a\r\n\r\n", "malformed-request"),
        (b"GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "not-found"),
        (b"GET /v1x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", None),
        (b"\r\nnonsense /v1/models\r\n\r\n", None),
    ],
)
async def test_openais_clients_can_read_what_is_refused_before_it_is_a_request(
    serve: Callable[..., Awaitable[str]], sent: bytes, code: str | None
) -> None:
    settings = Settings(models={"poet": "http://poet.test"}, root_path="/shangcai")
    url = await serve(create_app(settings), "/shangcai", respond=problem_responses(settings.root_path))
    _, body = await exchange(url, sent)
    assert json.loads(body).get("error", {}).get("code") == code
