"""What every route has in common: whatever is sent, the answer is a problem document in the dialect of the route."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from contract.limits import BODY_BYTES
from predictor.protocols.kserve_text import TextModel
from predictor.server.drain import Lifetime
from predictor.server.model_server import PredictorServer
from tests.support.scripted_engine import ScriptedEngine
from tests.support.wire.instances import names_its_request
from wire.listener import listen

CHAT = "/openai/v1/chat/completions"
COMPLETIONS = "/openai/v1/completions"
PREDICT = "/v1/models/poet:predict"
INFER = "/v2/models/poet/infer"
POSTED = pytest.mark.parametrize("path", [CHAT, COMPLETIONS, PREDICT, INFER])
JSON = {"Content-Type": "application/json"}


def check(answer: httpx2.Response, status: int, slug: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert (problem["type"], problem["status"]) == (f"urn:shangcai:problem:{slug}", status)
    assert names_its_request(answer)
    assert "Traceback" not in answer.text
    if answer.request.url.path.startswith("/openai/"):
        assert problem["error"]["message"] == problem["detail"]
        assert problem["error"]["code"] == {"unknown-model": "model_not_found"}.get(slug, slug)
    else:
        assert problem["error"] == problem["detail"]


@POSTED
@pytest.mark.parametrize(
    "content",
    [b"{", b"moon", b"\xff\xfe", b'{"model": "\xc3\x28"}', b"[" * 100_000, b'{"a": 1e', b"\xef\xbb\xbf{}", b"\0"],
    ids=["cut", "no JSON", "no UTF-8", "UTF-8 inside", "deep", "cut number", "BOM", "NUL"],
)
async def test_broken_json_is_a_malformed_body(client: httpx2.AsyncClient, path: str, content: bytes) -> None:
    answer = await client.post(path, content=content, headers=JSON)

    slug = answer.json()["type"].rpartition(":")[2]
    assert slug in ("malformed-body", "invalid-field")  # FastAPI and pydantic differ in what they call unreadable
    check(answer, 400, slug)


@POSTED
async def test_no_body_at_all_is_a_400(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(path, headers=JSON)

    check(answer, 400, answer.json()["type"].rpartition(":")[2])


@POSTED
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_what_is_no_number_is_refused(client: httpx2.AsyncClient, engine: Any, path: str, number: str) -> None:
    bodies = {
        CHAT: '{"model": "poet", "messages": [{"role": "user", "content": "a"}], "temperature": %s}',
        COMPLETIONS: '{"model": "poet", "prompt": "a", "temperature": %s}',
        PREDICT: '{"instances": [{"prompt": "a", "temperature": %s}]}',
        INFER: '{"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a"]}],'
        ' "parameters": {"temperature": %s}}',
    }

    answer = await client.post(path, content=bodies[path] % number, headers=JSON)

    check(answer, 400, answer.json()["type"].rpartition(":")[2])
    assert engine.tasks == []


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""]
)
async def test_what_is_not_sent_as_json_is_an_unsupported_media_type(
    client: httpx2.AsyncClient, path: str, content_type: str
) -> None:
    answer = await client.post(path, content=b"{}", headers={"Content-Type": content_type})

    check(answer, 415, "unsupported-media-type")


@POSTED
async def test_a_body_over_the_limit_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=b" " * (BODY_BYTES + 1), headers=JSON)

    check(answer, 413, "body-too-large")


async def test_the_limit_of_a_body_is_the_servers(engine: ScriptedEngine) -> None:
    with listen("127.0.0.1", 0) as listener:
        server = PredictorServer(TextModel("poet", engine), listener, Lifetime(grace_seconds=5), body_bytes=100)
        app = server.rest.create_application()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://predictor") as client:
            answers = [await client.post(CHAT, content=b" " * size, headers=JSON) for size in (100, 101)]

    check(answers[0], 400, "malformed-body")
    check(answers[1], 413, "body-too-large")
    assert "100 bytes" in answers[1].text


@POSTED
async def test_a_body_over_the_limit_is_refused_when_its_length_is_not_announced(
    client: httpx2.AsyncClient, path: str
) -> None:
    async def endless() -> Any:
        while True:
            yield b" " * 65_536
            await asyncio.sleep(0)

    try:
        answer = await client.post(path, content=endless(), headers=JSON)
    except httpx2.TransportError:
        return  # the server closed the connection before the client had stopped sending
    check(answer, 413, "body-too-large")


@POSTED
async def test_the_wrong_method_is_told_the_right_one(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    if path == PREDICT:  # to GET, "poet:predict" is the name of a model
        check(answer, 404, "unknown-model")
    else:
        check(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/openai/v1/embeddings", "/v1/chat/completions", "/docs", "/openapi.json", "/v1", "/%00"]
)
async def test_an_unknown_address_is_not_found(client: httpx2.AsyncClient, path: str) -> None:
    check(await client.get(path), 404, "not-found")


async def test_metrics_answer_in_prometheus_format(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    await client.post(PREDICT, json={"instances": [{"prompt": "a"}]})

    answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'request_predict_seconds_count{model_name="poet"}' in answer.text


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/models/poet:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/poet:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"\0" * 100,
    ],
    ids=["TLS", "version", "negative length", "bad chunk", "huge header", "NUL"],
)
async def test_what_is_no_http_is_dropped_and_the_next_is_served(
    server: Any, client: httpx2.AsyncClient, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(60):
        received = await _until_closed(reader)
    writer.close()

    assert b"Traceback" not in received
    assert (await client.get("/v2/health/live")).status_code == 200


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_a_client_that_leaves_while_sending_is_forgotten(
    server: Any, client: httpx2.AsyncClient, engine: Any
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /openai/v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()

    assert (await client.get("/v2/health/ready")).status_code == 200
    assert engine.tasks == []
