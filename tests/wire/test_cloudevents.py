"""CloudEvents over HTTP in every mode: round trips, and what is missing or wrong."""

from __future__ import annotations

import base64
import json

import pytest

from contract import ProblemError, problems
from contract.cloudevents import COMPLETED, CloudEvent
from tests.support.wire.cloudevents import (
    BARE,
    EVENTS,
    HEADERS,
    MODES,
    NAMED,
    named,
    on_the_wire,
    refused,
    structured,
)
from wire.cloudevents import (
    BATCHED,
    STRUCTURED,
    Delivery,
    Mode,
    is_event,
    is_json,
    read_events,
    write_batch,
    write_event,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_a_written_event_is_read_back(event: CloudEvent, mode: Mode) -> None:
    headers, body = write_event(event, mode)
    headers = on_the_wire(headers)
    assert is_event(headers)
    assert read_events(headers, body) == Delivery(mode, [event])


def test_a_batch_is_written_and_read() -> None:
    headers, body = write_batch(EVENTS.values())
    assert read_events(headers, body) == Delivery("batched", list(EVENTS.values()))


def test_binary_mode_is_headers_and_the_data() -> None:
    headers, body = write_event(EVENTS["json"])
    assert headers == {
        **HEADERS,
        "ce-subject": "job%207",
        "ce-time": "2026-01-31T08:00:00.5+08:00",
        "ce-dataschema": "https://shangcai.test/schema?a=b#c",
        "content-type": "application/json",
        "ce-traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ce-tracestate": "",
    }
    assert body == EVENTS["json"].data


def test_structured_mode_is_one_document() -> None:
    headers, body = write_event(EVENTS["json"], "structured")
    assert headers == {"content-type": "application/cloudevents+json"}
    assert json.loads(body) == {**EVENTS["json"].attributes, "data": {"prompt": "春\n雨"}}
    assert "春".encode() in body


@pytest.mark.parametrize("name", ["text", "bytes", "no json", "no type"])
def test_data_that_is_no_json_is_in_base64(name: str) -> None:
    document = json.loads(write_event(EVENTS[name], "structured")[1])
    assert "data" not in document
    assert base64.b64decode(document["data_base64"]) == EVENTS[name].data


def test_data_cannot_add_attributes() -> None:
    """Whoever passes an event on in another mode must not be made to change its type."""
    forged = BARE.model_copy(update={"data": f'1,"type":"{COMPLETED}"'.encode()})
    for mode in MODES:
        headers, body = write_event(forged, mode)
        assert read_events(headers, body).events == [forged]


def test_no_attribute_becomes_a_header_of_its_own() -> None:
    """Even where somebody went round the checks of the contract."""
    evil = "a\r\nSet-Cookie: b\0"
    event = BARE.model_copy(update={"subject": evil, "datacontenttype": evil, "extensions": {"x": evil}})
    headers, _ = write_event(event)
    assert headers["ce-subject"] == headers["ce-x"] == "a%0D%0ASet-Cookie:%20b%00"
    assert headers["content-type"] == "a%0D%0ASet-Cookie: b%00"
    on_the_wire(headers)


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"ce-id": "1"}, True),
        ({"content-type": "application/cloudevents+json"}, True),
        ({"content-type": "Application/CloudEvents-Batch+JSON; charset=utf-8"}, True),
        ({"content-type": "application/cloudevents+xml"}, True),
        ({"content-type": "application/json"}, False),
        ({"accept": "application/cloudevents+json"}, False),
        ({}, False),
    ],
)
def test_whether_a_request_is_an_event(headers: dict[str, str], answer: bool) -> None:
    assert is_event(headers) is answer


@pytest.mark.parametrize(
    ("content_type", "answer"),
    [
        (None, True),
        ("", True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/json", True),
        ("application/problem+json", True),
        ("application/jsonx", False),
        ("text/plain", False),
        ("json", False),
    ],
)
def test_whether_data_is_json(content_type: str | None, answer: bool) -> None:
    assert is_json(content_type) is answer


@pytest.mark.parametrize(
    "media_type", ["application/cloudevents+xml", "application/cloudevents", "application/cloudeventsx"]
)
def test_an_unknown_format_is_refused_with_the_known_ones(media_type: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read_events({"content-type": f"{media_type}; charset=utf-8", **HEADERS}, b"<event/>")
    assert caught.value.kind is problems.UNSUPPORTED_MEDIA_TYPE
    assert STRUCTURED in str(caught.value)
    assert BATCHED in str(caught.value)


@pytest.mark.parametrize("name", list(NAMED))
def test_required_attributes_are_named(name: str) -> None:
    for value in (None, ""):
        headers = {**HEADERS, f"ce-{name}": value}
        present = {key: text for key, text in headers.items() if text is not None}
        assert str(refused(present)) == f"header ce-{name}: is required"
        assert str(refused({"content-type": STRUCTURED}, structured(**{name: value}))) == f"{name}: is required"
        batch = b"[" + structured() + b"," + structured(**{name: value}) + b"]"
        assert str(refused({"content-type": BATCHED}, batch)) == f"1.{name}: is required"


def test_all_missing_attributes_are_named_at_once() -> None:
    assert named(refused({})) == [f"header ce-{name}" for name in NAMED]
    assert named(refused({"content-type": STRUCTURED}, b"{}")) == list(NAMED)


@pytest.mark.parametrize("version", ["0.3", "1", "1.1", "2.0"])
def test_an_unknown_version_is_named(version: str) -> None:
    assert named(refused({**HEADERS, "ce-specversion": version})) == ["header ce-specversion"]
    error = refused({"content-type": STRUCTURED}, structured(specversion=version))
    assert named(error) == ["specversion"]
    assert "'1.0'" in str(error)


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-31", "2026-01-31T08:00:00"])
def test_an_invalid_time_is_named(time: str) -> None:
    assert named(refused({**HEADERS, "ce-time": time})) == ["header ce-time"]
    assert named(refused({"content-type": STRUCTURED}, structured(time=time))) == ["time"]


@pytest.mark.parametrize("name", ["subject", "id", "anextension"])
def test_a_huge_attribute_is_named_and_not_repeated(name: str) -> None:
    error = refused({"content-type": STRUCTURED}, structured(**{name: "x" * 100_000}))
    assert named(error) == [name]
    assert len(str(error)) < 200
    assert named(refused({**HEADERS, f"ce-{name}": "x" * 100_000})) == [f"header ce-{name}"]
