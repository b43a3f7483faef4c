"""Answers as they come from a socket."""

from __future__ import annotations

import json
import re


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
    return document["status"], document["type"].removeprefix("urn:shangcai:problem:")


def split(answers: bytes) -> list[bytes]:
    """The answers on one connection."""
    return [b"HTTP/1.1 " + one for one in answers.split(b"HTTP/1.1 ")[1:]]
