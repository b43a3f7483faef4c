"""The HTTP of both servers, byte by byte: what is bounded, what is refused and how, and who still gets an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from contract.limits import BODY_CHUNKS, HEADER_BYTES, HEADER_FIELDS
from tests.support.waiting import SECONDS, eventually
from tests.support.wire.raw_answers import problem, split
from wire.connections import http_protocol, request_parser
from wire.connections.request_parser import SINGLE

JAVA = (
    b"POST /echo HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 4\r\nHost: 127.0.0.1:8080\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\nContent-Type: application/json\r\n\r\n"
)
"""What the client of Java's standard library sends before the body, which comes in a packet of its own."""

CURL = (
    b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    b"Content-Type: application/json\r\nContent-Length: 4\r\n\r\nmoon"
)
"""What `curl --http2 -d` sends."""

GET = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


Served = Any  # of conftest, which cannot be imported


# Offers of HTTP/2


@pytest.mark.parametrize("sent", [(JAVA, b"moon"), (JAVA + b"moon",), (CURL,)], ids=["java", "java at once", "curl"])
async def test_an_offer_of_http2_keeps_its_body_and_its_connection(served: Served, sent: tuple[bytes, ...]) -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    first, second = split(await served.exchange(*sent, last))
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\nmoon")
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http2_that_nobody_has_agreed_to(served: Served) -> None:
    assert problem(await served.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) == (400, "malformed-request")


async def test_a_websocket_is_a_problem(served: Served) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    answer = await served.exchange(GET.replace(b"\r\n\r\n", b"\r\n" + upgrade))
    assert problem(answer) == (501, "not-implemented")


# Bounds


def with_header(size: int) -> bytes:
    return GET.replace(b"Host", b"X: %s\r\nHost" % (b"x" * size))


def with_fields(count: int) -> bytes:
    fields = b"".join(b"X-%d: x\r\n" % number for number in range(count - 2))
    return GET.replace(b"Host", b"Connection: close\r\n" + fields + b"Host")


@pytest.mark.parametrize(
    "sent",
    [
        with_header(HEADER_BYTES),
        with_header(12 * HEADER_BYTES),
        GET.replace(b"/quick", b"/" + b"x" * HEADER_BYTES),
        b"x" * 2 * HEADER_BYTES,
        with_fields(HEADER_FIELDS + 1),
    ],
    ids=["a field", "a huge field", "the request line", "no line at all", "fields"],
)
async def test_a_header_that_is_too_large(served: Served, sent: bytes) -> None:
    assert problem(await served.exchange(sent)) == (431, "header-too-large")


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "pipelined"])
async def test_a_header_that_is_too_large_is_not_parsed(
    served: Served, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    """Sixty thousand fields that come in one piece would hold up everybody else."""
    parsed: list[Any] = []
    monkeypatch.setattr(request_parser, "_objection", parsed.append)
    *_, last = split(await served.exchange(before + with_fields(60_000)))
    assert problem(last) == (431, "header-too-large")
    assert len(parsed) == before.count(GET)


async def test_a_body_in_too_many_chunks(served: Served) -> None:
    """Each costs as much as it does where they are large."""
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"1\r\nx\r\n"
    answer = await served.exchange(head + chunk * BODY_CHUNKS + b"0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n" + b"x" * BODY_CHUNKS)
    assert problem(await served.exchange(head + chunk * (BODY_CHUNKS + 1))) == (413, "body-too-large")


async def test_trailers_without_end(served: Served) -> None:
    sent = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: x\r\n" * HEADER_BYTES
    assert problem(await served.exchange(sent + b"\r\n")) == (431, "header-too-large")


async def test_a_header_as_large_as_allowed(served: Served) -> None:
    for sent in (with_fields(HEADER_FIELDS), with_fields(3).replace(b"X-0: x", b"X-0: " + b"x" * (HEADER_BYTES - 99))):
        assert (await served.exchange(sent)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_header_without_end_is_cut_off(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(GET.removesuffix(b"\r\n"))
    sent = 0
    with suppress(ConnectionError):
        while sent < 64 * http_protocol.DISCARD_BYTES:
            writer.write(b"X: %s\r\n" % (b"x" * 65_536))
            await writer.drain()
            sent += 65_536
    with suppress(ConnectionError):
        assert b" 431 " in await asyncio.wait_for(reader.readline(), SECONDS)
    writer.close()
    assert sent < 64 * http_protocol.DISCARD_BYTES


@pytest.mark.parametrize("before", [b"", GET, GET + GET], ids=["first", "second", "pipelined"])
async def test_a_header_that_comes_slowly(served: Served, monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.1)
    reader, writer = await served.connect()
    writer.write(before + GET[:8])

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.01)
            writer.write(b"x")

    dripping = asyncio.create_task(drip())
    *answers, last = split(await asyncio.wait_for(reader.read(), SECONDS))
    dripping.cancel()
    writer.close()
    assert problem(last) == (408, "header-timeout")
    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * before.count(GET)


async def test_the_time_between_requests_is_no_headers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.05)
    reader, writer = await served.connect()
    writer.write(GET)
    await reader.readuntil(b"}")
    assert problem(await served.exchange(GET[:8])) == (408, "header-timeout")  # so that the time is over
    writer.write(GET)
    await asyncio.wait_for(reader.readuntil(b"}"), SECONDS)
    writer.close()


async def test_a_connection_on_which_nothing_comes_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SILENT_SECONDS", 0.05)
    assert await served.exchange() == b""


# Clients that send something else


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"nonsense\r\n\r\n",
        b"GET /quick HTTP/1.1\r\n\r\n",  # without Host
        b"GET /quick HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nmoon",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\nmoon" % (b"9" * 5000),
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HEAD /quick HTTP/3.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_cannot_be_read(served: Served, sent: bytes) -> None:
    answer = await served.exchange(sent)
    if sent.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
    else:
        assert problem(answer) == (400, "malformed-request")


@pytest.mark.parametrize("name", [*SINGLE.values(), "ce-id"])
async def test_a_header_that_is_given_twice(served: Served, name: str) -> None:
    field = name.lower().encode()
    answer = await served.exchange(GET.replace(b"Host", b"%s: 1\r\n%s: 1\r\nHost" % (field, field.upper())))
    assert answer.startswith(b"HTTP/1.1 400 ")
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["errors"] == [{"field": name, "detail": "may be given once, not 2 times"}]


@pytest.mark.parametrize("name", [b"Accept", b"Prefer", b"X-Forwarded-For"])
async def test_a_header_that_is_a_list(served: Served, name: bytes) -> None:
    answer = await served.exchange(GET.replace(b"Host", b"Connection: close\r\n%s: 1\r\n%s: 1\r\nHost" % (name, name)))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_cannot_be_read_is_named_without_pythons_types(served: Served) -> None:
    answer = json.loads((await served.exchange(b"GET /quick\r\n\r\n")).partition(b"\r\n\r\n")[2])
    assert answer["detail"] == "The request cannot be read: illegal request line: 'GET /quick'."


async def test_a_transfer_coding_that_is_unknown(served: Served) -> None:
    sent = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    assert problem(await served.exchange(sent)) == (501, "not-implemented")


async def test_nonsense_after_requests_sent_ahead(served: Served) -> None:
    first, second, last = split(await served.exchange(GET + GET + b"\x00nonsense\r\n\r\n"))
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert problem(last) == (400, "malformed-request")


async def test_nonsense_within_an_answer_waits_for_its_end(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"one, ")
    writer.write(b"\x00nonsense\r\n\r\n")
    served.application.gate.set()
    rest = await asyncio.wait_for(reader.read(), SECONDS)
    writer.close()
    assert b"two" in rest
    assert problem(split(rest)[-1]) == (400, "malformed-request")


async def test_the_id_of_a_request_that_is_refused(served: Served) -> None:
    answer = await served.exchange(GET.replace(b"Host", b"X-Request-Id: mine\r\nUpgrade: WebSocket\r\nHost"))
    assert b"x-request-id: mine\r\n" in answer.lower()


@pytest.mark.parametrize("before", [b"\r\n", CURL + b"\r\n"], ids=["first", "after a body"])
async def test_an_empty_line_before_a_request_is_ignored(served: Served, before: bytes) -> None:
    """Some clients send one after a body (RFC 9112, 2.2)."""
    *_, last = split(await served.exchange(before + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
    assert last.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_empty_line_alone_is_a_request_that_has_begun(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.05)
    assert problem(await served.exchange(b"\r\n")) == (408, "header-timeout")


async def test_two_empty_lines_are_no_request(served: Served) -> None:
    assert problem(await served.exchange(b"\r\n", b"\r\n")) == (400, "malformed-request")


async def test_a_target_with_the_name_of_the_server(served: Served) -> None:
    answer = await served.exchange(b"GET http://x:80/quick?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b'{"path":"/quick"}')


async def test_an_answer_that_breaks_off_is_no_traceback(served: Served) -> None:
    answer = await served.exchange(GET.replace(b"quick", b"broken"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"one, \r\n")  # without a last chunk


async def test_a_request_that_outlives_the_server_is_no_traceback(serve: Callable[..., Awaitable[Served]]) -> None:
    served = await serve(graceful_seconds=0)
    asking = asyncio.create_task(served.exchange(SLOW))
    await eventually(lambda: served.application.running)
    served.server.should_exit = True
    assert problem(await asking) == (503, "unavailable")
    assert served.application.running == 0


# HTTP/1.0 and clients that shut down their side


async def test_http10_gets_no_chunks(served: Served) -> None:
    served.application.gate.set()
    answer = await served.exchange(b"GET /stream HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\none, two")
    assert b"transfer-encoding" not in answer.lower()


async def test_a_client_that_shuts_down_its_side_gets_its_answer(served: Served) -> None:
    asking = asyncio.create_task(served.exchange(SLOW, half_close=True))
    await eventually(lambda: served.application.running)
    reader, writer = await served.connect()  # another connection, on which time passes
    writer.write(GET)
    await reader.readuntil(b"}")
    writer.close()
    served.application.gate.set()
    *interim, last = split(await asking)
    assert set(interim) == {b"HTTP/1.1 100 Continue\r\n\r\n"}
    assert last.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("sent", [GET, GET * 3, b"GET /quick HTTP/1.0\r\n\r\n", GET + b"GET /qu"])
async def test_everything_that_came_whole_is_answered(served: Served, sent: bytes) -> None:
    answer = await served.exchange(sent, half_close=True)
    assert answer.count(b" 200 OK\r\n") == sent.count(b"\r\n\r\n")


async def test_a_client_that_sends_ahead_and_shuts_down_its_side(served: Served) -> None:
    """The server stops reading while requests wait, and is told of the end once more when it goes on."""
    stream = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
    asking = asyncio.create_task(served.exchange(SLOW + stream + GET + stream, half_close=True))
    await eventually(lambda: served.application.running)
    served.application.gate.set()
    answer = await asking
    assert answer.count(b" 200 OK\r\n") == 4
    assert answer.count(b"two\r\n0\r\n\r\n") == 2


async def test_http10_that_shuts_down_its_side_gets_no_interim_answers(served: Served) -> None:
    asking = asyncio.create_task(served.exchange(b"POST /slow HTTP/1.0\r\n\r\n", half_close=True))
    await eventually(lambda: served.application.running)
    served.application.gate.set()
    [answer] = split(await asking)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("path", [b"/slow", b"/stream"])
async def test_a_client_that_closes_its_connection_has_left(served: Served, path: bytes) -> None:
    _, writer = await served.connect()
    writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
    await eventually(lambda: served.application.running)
    writer.close()
    await eventually(lambda: not served.application.running)


async def test_what_cannot_be_read_is_not_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """What comes after a body that is longer than announced is read as the next request: the rest of a prompt."""
    caplog.set_level("DEBUG")
    sent = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na persimmon\r\n\r\n"
    assert problem(split(await served.exchange(sent))[-1]) == (400, "malformed-request")
    lines = [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]
    assert any("malformed-request" in line for line in lines)
    assert not any("persimmon" in line for line in lines)
