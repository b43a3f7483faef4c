"""CloudEvents in binary mode: attributes in headers."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.wire.cloudevents import (
    BARE,
    HEADERS,
    named,
    read,
    refused,
    structured,
)
from wire.cloudevents import (
    read_events,
)


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
        ("春雨", "春雨"),  # raw UTF-8, as httpx2 decodes it
        ("é", "é"),
        ("é %E6%98%A5", "é 春"),
    ],
)
def test_header_values(value: str, text: str) -> None:
    [event] = read_events({**HEADERS, "ce-subject": value}, b"").events
    assert event.subject == text


def test_raw_utf_8_survives_httpx() -> None:
    headers = httpx2.Headers(
        [*((k.encode(), v.encode()) for k, v in HEADERS.items()), (b"ce-subject", "é 春".encode())]
    )
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


def test_the_content_type_is_that_of_the_data() -> None:
    headers = {**HEADERS, "content-type": "text/plain; charset=gbk", "ce-datacontenttype": "application/json"}
    [event] = read_events(headers, b"\xb4\xba").events
    assert (event.datacontenttype, event.data) == ("text/plain; charset=gbk", b"\xb4\xba")


def test_no_body_is_no_data() -> None:
    [event] = read_events({**HEADERS, "content-type": "application/json"}, b"").events
    assert event.data is None
