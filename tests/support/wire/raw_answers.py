"""Requests made of bytes, and answers as they come from a socket."""

from __future__ import annotations

import asyncio
import json
import re

import httpx2

from tests.support.waiting import SECONDS

JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA\r\n"
"""The offer of HTTP/2 that the client of Java's standard library makes."""


async def exchange(url: str, sent: bytes, *, half_close: bool = False) -> tuple[str, bytes]:
    """The status line and header, and the body, of the last answer on a connection, which the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(url).port)
    writer.write(sent)
    if half_close:
        writer.write_eof()
    received = await asyncio.wait_for(reader.read(), SECONDS)
    writer.close()
    head, _, body = received.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    return head.decode(), body


def problem(answer: bytes) -> tuple[int, str]:
    """The status and the slug of an answer, which is whole, a problem document and the last of its connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    assert int(headers["content-length"]) == len(body)
    document = json.loads(body)
    assert document["status"] == int(status.split()[1])
    assert "instance" not in document  # there may be no request
    return document["status"], document["type"].removeprefix("urn:shangcai:problem:")


def split(answers: bytes) -> list[bytes]:
    """The answers on one connection."""
    return [b"HTTP/1.1 " + one for one in answers.split(b"HTTP/1.1 ")[1:]]
