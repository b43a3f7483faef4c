"""CloudEvents over HTTP, held against the specification and against Python's own SDK."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent as ForeignEvent
from cloudevents.http import from_http

from contract import INSTANCES, ProblemError, ProblemType, problems
from contract.cloudevents import COMPLETED, REQUESTED, CloudEvent
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


# Round trips


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_what_is_written_is_read(event: CloudEvent, mode: Mode) -> None:
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
def test_what_is_no_json_travels_in_base64(name: str) -> None:
    document = json.loads(write_event(EVENTS[name], "structured")[1])
    assert "data" not in document
    assert base64.b64decode(document["data_base64"]) == EVENTS[name].data


def test_data_puts_no_attributes_beside_itself() -> None:
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


# Which requests are events


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
def test_a_request_says_whether_it_is_an_event(headers: dict[str, str], answer: bool) -> None:
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
def test_data_says_whether_it_is_json(content_type: str | None, answer: bool) -> None:
    assert is_json(content_type) is answer


@pytest.mark.parametrize(
    "media_type", ["application/cloudevents+xml", "application/cloudevents", "application/cloudeventsx"]
)
def test_an_unknown_format_is_told_the_known_ones(media_type: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read_events({"content-type": f"{media_type}; charset=utf-8", **HEADERS}, b"<event/>")
    assert caught.value.kind is problems.UNSUPPORTED_MEDIA_TYPE
    assert STRUCTURED in str(caught.value)
    assert BATCHED in str(caught.value)


# Binary mode


def test_time_may_be_missing() -> None:
    assert read_events(HEADERS, b"").events == [BARE]
    assert read(structured()) == BARE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("%E6%98%A5%20rain", "春 rain"),
        ("%e6%98%a5", "春"),
        ("100%25", "100%"),
        ("%2541", "%41"),  # decoded once
        ('"in quotes"', "in quotes"),
        (r'"a \"quoted\" \\ word"', r'a "quoted" \ word'),
        ('"%E6%98%A5"', "春"),
        ('half"quoted', 'half"quoted'),
        ('"', '"'),
        ("春雨".encode().decode("latin-1"), "春雨"),  # raw UTF-8, as a server decodes it
        ("é".encode().decode("latin-1"), "é"),
        ("春雨", "春雨"),  # raw UTF-8, as httpx decodes it
        ("é", "é"),
        ("é %E6%98%A5", "é 春"),
    ],
)
def test_header_values(value: str, text: str) -> None:
    [event] = read_events({**HEADERS, "ce-subject": value}, b"").events
    assert event.subject == text


def test_raw_utf_8_survives_httpx() -> None:
    headers = httpx.Headers([*((k.encode(), v.encode()) for k, v in HEADERS.items()), (b"ce-subject", "é 春".encode())])
    [event] = read_events(headers, b"").events
    assert event.subject == "é 春"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("100%", "has a % that begins no percent-encoding"),
        ("%zz", "has a % that begins no percent-encoding"),
        ("%E6%9", "has a % that begins no percent-encoding"),
        ("%FF", "is no percent-encoded UTF-8"),
        ("%E6%98", "is no percent-encoded UTF-8"),
        ("%ED%A0%80", "is no percent-encoded UTF-8"),  # half a surrogate pair
    ],
)
def test_invalid_percent_encoding_is_named(value: str, reason: str) -> None:
    error = refused({**HEADERS, "ce-subject": value})
    assert str(error) == f"header ce-subject: {reason}"
    assert named(error) == ["header ce-subject"]


@pytest.mark.parametrize("value", ["a%0D%0Ab", "%00", "%7f"])
def test_control_characters_do_not_come_in_by_percent_encoding(value: str) -> None:
    assert str(refused({**HEADERS, "ce-subject": value})) == "header ce-subject: must not have control characters"


@pytest.mark.parametrize("name", ["my-attribute", "my_attribute", "data", "ä", ""])
def test_names_in_headers_are_checked(name: str) -> None:
    assert named(refused({**HEADERS, f"ce-{name}": "x"})) == [f"header ce-{name}"]


def test_headers_that_are_no_attributes_are_left_alone() -> None:
    headers = {**HEADERS, "host": "x", "x-request-id": "a b", "prefer": "reply", "cexyz": "%"}
    assert read_events(headers, b"").events == [BARE]


def test_the_content_type_is_the_datas() -> None:
    headers = {**HEADERS, "content-type": "text/plain; charset=gbk", "ce-datacontenttype": "application/json"}
    [event] = read_events(headers, b"\xb4\xba").events
    assert (event.datacontenttype, event.data) == ("text/plain; charset=gbk", b"\xb4\xba")


def test_no_body_is_no_data() -> None:
    [event] = read_events({**HEADERS, "content-type": "application/json"}, b"").events
    assert event.data is None


# What is missing, unknown or wrong, in any mode


@pytest.mark.parametrize("name", list(NAMED))
def test_required_attributes_are_named(name: str) -> None:
    for value in (None, ""):
        headers = {**HEADERS, f"ce-{name}": value}
        present = {key: text for key, text in headers.items() if text is not None}
        assert str(refused(present)) == f"header ce-{name}: is required"
        assert str(refused({"content-type": STRUCTURED}, structured(**{name: value}))) == f"{name}: is required"
        batch = b"[" + structured() + b"," + structured(**{name: value}) + b"]"
        assert str(refused({"content-type": BATCHED}, batch)) == f"1.{name}: is required"


def test_everything_that_is_missing_is_named_at_once() -> None:
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


# Structured mode


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (-1, "-1"), (True, "true"), (False, "false"), ("7", "7"), ("", "")],
)
def test_attributes_may_be_numbers_and_truth_values(value: Any, text: str) -> None:
    assert read(structured(anextension=value)).extensions == {"anextension": text}


@pytest.mark.parametrize("value", [1.5, [], {}, ["x"]])
def test_attributes_are_nothing_else(value: Any) -> None:
    error = refused({"content-type": STRUCTURED}, structured(anextension=value))
    assert str(error) == "anextension: must be a text, a whole number or a truth value"


def test_null_members_are_left_out() -> None:
    nulls = {"subject": None, "time": None, "data": None, "data_base64": None, "datacontenttype": None, "ext": None}
    assert read(structured(**nulls)) == BARE


@pytest.mark.parametrize("name", ["my-attribute", "my_attribute", "Subject", "名", "", "x" * 1000 + "-"])
def test_names_of_members_are_checked(name: str) -> None:
    assert named(refused({"content-type": STRUCTURED}, structured(**{name: "x"}))) == [name[:64]]


def test_a_hostile_event_gets_a_short_answer() -> None:
    members = {f"{'x' * 1000}-{number}": "x" for number in range(1000)}
    error = refused({"content-type": STRUCTURED}, structured(**members))
    assert len(named(error)) <= 16
    assert len(str(error)) < 5000


@pytest.mark.parametrize(
    ("members", "data"),
    [
        ({"data": {"b": "春", "a": [1, None]}}, '{"b":"春","a":[1,null]}'.encode()),
        ({"data": "text"}, b'"text"'),
        ({"data": "text", "datacontenttype": "application/json"}, b'"text"'),
        ({"data": "春\n", "datacontenttype": "text/plain"}, "春\n".encode()),
        ({"data": "<a/>", "datacontenttype": "application/xml; charset=utf-8"}, b"<a/>"),
        ({"data": "{}", "datacontenttype": "application/x+json"}, b'"{}"'),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, b'{"a":1}'),
        ({"data": False}, b"false"),
        ({"data": 0}, b"0"),
        ({"data": ""}, b'""'),
        ({"data": "", "datacontenttype": "text/plain"}, b""),
        ({"data_base64": "AAH/"}, b"\x00\x01\xff"),
        ({"data_base64": ""}, b""),
    ],
)
def test_data_in_a_document(members: dict[str, Any], data: bytes) -> None:
    assert read(structured(**members)).data == data


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"data_base64": "?"}, "data_base64"),
        ({"data_base64": "AAH"}, "data_base64"),
        ({"data_base64": "春"}, "data_base64"),
        ({"data_base64": 7}, "data_base64"),
        ({"data_base64": []}, "data_base64"),
        ({"data_base64": "AAH/", "data": {}}, "data_base64"),
        ({"data": "\ud800"}, "data"),
        ({"subject": "\ud800"}, "subject"),
        ({"\ud800": 1.5}, "?"),
    ],
)
def test_data_that_cannot_be_taken_is_named(members: dict[str, Any], field: str) -> None:
    assert named(refused({"content-type": STRUCTURED}, structured(**members))) == [field]


def test_a_number_beyond_all_bounds_is_no_data() -> None:
    error = refused({"content-type": STRUCTURED}, structured(data=0)[:-2] + b"1e999}")
    assert named(error) == ["data"]


@pytest.mark.parametrize("body", [b"", b"{", b"<event/>", b"\xff", b'{"data":NaN}', b'{"data":-Infinity}', b"1" * 5000])
@pytest.mark.parametrize("media_type", [STRUCTURED, BATCHED])
def test_what_is_no_json_is_said(media_type: str, body: bytes) -> None:
    error = refused({"content-type": media_type}, body)
    assert str(error).startswith("The body is not valid JSON: ")
    assert len(str(error)) < 300


@pytest.mark.parametrize("body", [b"[]", b'"event"', b"7", b"null"])
def test_a_document_is_an_object(body: bytes) -> None:
    assert str(refused({"content-type": STRUCTURED}, body)) == "body: must be a JSON object"


def nested(depth: int) -> bytes | ProblemType | None:
    """The data of an event with so many brackets, or why it is refused."""
    try:
        return read(structured(data=0)[:-2] + b"[" * depth + b"]" * depth + b"}").data
    except ProblemError as error:
        return error.kind


def test_deep_nesting_is_refused() -> None:
    assert nested(100) == b"[" * 100 + b"]" * 100
    assert nested(100_000) is problems.MALFORMED_EVENT


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_what_can_be_read_can_be_written_again(depth: int) -> None:
    """Python's limit of recursion may lie between the two."""
    assert nested(depth) in (b"[" * depth + b"]" * depth, problems.MALFORMED_EVENT)


def test_of_two_members_of_one_name_the_last_counts() -> None:
    """As in Go's SDK, so that a broker's filter and we see the same event."""
    assert read(structured()[:-1] + b',"subject":"a","subject":"b"}').subject == "b"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf-16", "utf-32"])
def test_a_document_may_be_in_any_unicode(charset: str) -> None:
    body = structured(subject="春").decode().encode(charset)
    assert read(body, f"application/cloudevents+json; charset={charset}").subject == "春"


# Batched mode


def test_a_batch_may_be_empty() -> None:
    assert read_events({"content-type": BATCHED}, b"[]") == Delivery("batched", [])
    assert write_batch([]) == ({"content-type": BATCHED}, b"[]")


def test_a_batch_of_the_limit_is_read_and_a_longer_one_is_refused() -> None:
    event = structured()
    longest = b"[" + b",".join([event] * INSTANCES) + b"]"
    assert len(read_events({"content-type": BATCHED}, longest).events) == INSTANCES
    error = refused({"content-type": BATCHED}, longest[:-1] + b"," + event + b"]")
    assert f"at most {INSTANCES} events" in str(error)


@pytest.mark.parametrize("body", [structured(), b'"event"', b"null"])
def test_a_batch_is_a_list(body: bytes) -> None:
    assert "A batch is a list" in str(refused({"content-type": BATCHED}, body))


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (b"7", "1"),
        (structured(subject=1.5), "1.subject"),
        (structured(time="x"), "1.time"),
        (structured(data_base64="?"), "1.data_base64"),
        (structured(**{"a-b": "x"}), "1.a-b"),
    ],
)
def test_the_place_in_the_batch_is_named(item: bytes, field: str) -> None:
    assert named(refused({"content-type": BATCHED}, b"[" + structured() + b"," + item + b"]")) == [field]


# Python's SDK


def foreign(data: Any, **attributes: Any) -> ForeignEvent:
    return ForeignEvent({**NAMED, **attributes}, data)


def sent(headers: dict[str, Any]) -> dict[str, str]:
    """As they arrive; that SDK leaves numbers, and text that it does not encode."""
    return {name.lower(): str(value).encode().decode("latin-1") for name, value in headers.items()}


FOREIGN = [
    ({"prompt": "春雨"}, {"datacontenttype": "application/json", "subject": "春 100", "attempt": 7}),
    ([1, 2.5, None], {}),
    ("text", {"datacontenttype": "application/json"}),
    (b"\x00\xff", {"datacontenttype": "image/png"}),
    (None, {"subject": "nothing"}),
]


@pytest.mark.parametrize(("data", "attributes"), FOREIGN)
def test_what_pythons_sdk_writes_is_read(data: Any, attributes: dict[str, Any]) -> None:
    event = foreign(data, **attributes)
    content = data if isinstance(data, bytes) else None if data is None else json.loads(json.dumps(data))
    for write, mode in ((to_binary, "binary"), (to_structured, "structured")):
        headers, body = write(event)
        delivery = read_events(sent(headers), body or b"")
        assert delivery.mode == mode
        [ours] = delivery.events
        assert ours.key == ("/poets", "a-1")
        assert ours.subject == attributes.get("subject")
        assert ours.time == event["time"]
        assert ours.extensions == ({"attempt": "7"} if "attempt" in attributes else {})
        assert content == (json.loads(ours.data) if ours.data and is_json(ours.datacontenttype) else ours.data)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_what_is_written_pythons_sdk_reads(name: str, mode: Mode) -> None:
    event = EVENTS[name]
    headers, body = write_event(event, mode)
    theirs = from_http(headers, body)
    seen = {attribute: theirs[attribute] for attribute in event.attributes}
    if mode == "binary":  # it takes headers as they come
        seen = {attribute: unquote(value) for attribute, value in seen.items()}
    assert seen == event.attributes
    try:
        assert theirs.data == json.loads(event.data or b"null")
    except ValueError:
        assert theirs.data == event.data
