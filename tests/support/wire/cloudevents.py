"""Events and requests that hold them, for the tests of wire.cloudevents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract import ProblemError, problems
from contract.cloudevents import REQUESTED, CloudEvent
from wire.cloudevents import (
    STRUCTURED,
    Mode,
    read_events,
)

MODES: tuple[Mode, ...] = ("binary", "structured", "batched")
BARE = CloudEvent(id="a-1", source="/poets", type=REQUESTED)
NAMED = {"specversion": "1.0", "id": "a-1", "source": "/poets", "type": REQUESTED}
HEADERS = {f"ce-{name}": value for name, value in NAMED.items()}
EVENTS = {
    "bare": BARE,
    "json": BARE.model_copy(
        update={
            "subject": "job 7",
            "time": "2026-01-31T08:00:00.5+08:00",
            "dataschema": "https://shangcai.test/schema?a=b#c",
            "datacontenttype": "application/json",
            "extensions": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": ""},
            "data": '{"prompt":"春\\n雨"}'.encode(),
        }
    ),
    "any text": BARE.model_copy(
        update={"subject": '春雨 100% "sure" \\ ü € 🌧 %41', "source": "/诗人/a b", "id": '"quoted"', "data": b'"x"'}
    ),
    "charset": BARE.model_copy(
        update={"datacontenttype": 'application/json; charset="utf-8"; x=100%', "data": b'{"a":[1,2.5,null]}'}
    ),
    "text": BARE.model_copy(update={"datacontenttype": "text/plain; charset=utf-8", "data": "春\r\n".encode()}),
    "bytes": BARE.model_copy(update={"datacontenttype": "image/png", "data": bytes(range(256))}),
    "no json": BARE.model_copy(update={"datacontenttype": "application/json", "data": b"\xff{"}),
    "no type": BARE.model_copy(update={"data": b"neither a type nor JSON"}),
    "problem": BARE.model_copy(update={"datacontenttype": "application/problem+json", "data": b'{"status":400}'}),
}


def on_the_wire(headers: dict[str, str]) -> dict[str, str]:
    """As Starlette has them; what cannot be sent fails."""
    for name, value in headers.items():
        assert value.isascii(), name
        assert value.isprintable(), name
    return {name.lower(): value for name, value in headers.items()}


def structured(**members: Any) -> bytes:
    return json.dumps({**NAMED, **members}).encode()


def read(body: bytes, content_type: str = STRUCTURED) -> CloudEvent:
    [event] = read_events({"content-type": content_type}, body).events
    return event


def refused(headers: dict[str, str], body: bytes = b"") -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        read_events(headers, body)
    assert caught.value.kind is problems.MALFORMED_EVENT
    return caught.value


def named(error: ProblemError) -> list[str]:
    """The fields that it names, each with a reason."""
    assert all(item.detail for item in error.problem.errors or ())
    return [item.field for item in error.problem.errors or ()]
