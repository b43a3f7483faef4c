"""CloudEvents in structured and batched mode: attributes and data in JSON."""

from __future__ import annotations

from typing import Any

import pytest

from contract import INSTANCES, ProblemError, ProblemType, problems
from tests.support.wire.cloudevents import (
    BARE,
    named,
    read,
    refused,
    structured,
)
from wire.cloudevents import (
    BATCHED,
    STRUCTURED,
    Delivery,
    read_events,
    write_batch,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (-1, "-1"), (True, "true"), (False, "false"), ("7", "7"), ("", "")],
)
def test_attributes_may_be_numbers_and_truth_values(value: Any, text: str) -> None:
    assert read(structured(anextension=value)).extensions == {"anextension": text}


@pytest.mark.parametrize("value", [1.5, [], {}, ["x"]])
def test_other_types_are_refused(value: Any) -> None:
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
def test_unusable_data_is_named(members: dict[str, Any], field: str) -> None:
    assert named(refused({"content-type": STRUCTURED}, structured(**members))) == [field]


def test_a_number_beyond_all_bounds_is_no_data() -> None:
    error = refused({"content-type": STRUCTURED}, structured(data=0)[:-2] + b"1e999}")
    assert named(error) == ["data"]


@pytest.mark.parametrize("body", [b"", b"{", b"<event/>", b"\xff", b'{"data":NaN}', b'{"data":-Infinity}', b"1" * 5000])
@pytest.mark.parametrize("media_type", [STRUCTURED, BATCHED])
def test_invalid_json_is_refused(media_type: str, body: bytes) -> None:
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
def test_an_event_that_can_be_read_can_be_written(depth: int) -> None:
    """Python's limit of recursion may lie between the two."""
    assert nested(depth) in (b"[" * depth + b"]" * depth, problems.MALFORMED_EVENT)


def test_of_two_members_of_one_name_the_last_counts() -> None:
    """As in Go's SDK, so that a broker's filter and we see the same event."""
    assert read(structured()[:-1] + b',"subject":"a","subject":"b"}').subject == "b"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf-16", "utf-32"])
def test_a_document_may_be_in_any_unicode(charset: str) -> None:
    body = structured(subject="春").decode().encode(charset)
    assert read(body, f"application/cloudevents+json; charset={charset}").subject == "春"


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
def test_errors_name_the_index_in_the_batch(item: bytes, field: str) -> None:
    assert named(refused({"content-type": BATCHED}, b"[" + structured() + b"," + item + b"]")) == [field]
