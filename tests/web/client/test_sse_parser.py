"""Reading server-sent events, however the bytes are cut."""

from __future__ import annotations

import time

import pytest

from web.client.sse_parser import DataFields, EventTooLongError

STREAM = ": comment\n\ndata: a\n\nevent: x\ndata:b\nid: 1\ndata:  c\n\ndata\n\ndata: 春\n\ndata: unfinished\n"
DATA = [b"a", b"b\n c", "春".encode()]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_every_cut_gives_the_same_events(end: str, size: int) -> None:
    raw = STREAM.replace("\n", end).encode()
    fields = DataFields(event_bytes=1000)
    found = [data for at in range(0, len(raw), size) for data in fields.feed(raw[at : at + size])]
    assert found == DATA


@pytest.mark.parametrize("parts", [[b"data: abcd", b"e"], [b"data: a\n", b"data: b\n"], [b"data:\n" * 3]])
def test_an_event_has_a_limit(parts: list[bytes]) -> None:
    *within, beyond = parts
    fields = DataFields(event_bytes=10)
    for part in within:
        assert fields.feed(part) == []
    with pytest.raises(EventTooLongError):
        fields.feed(beyond)


def test_the_limit_is_for_each_event() -> None:
    fields = DataFields(event_bytes=10)
    assert fields.feed(b"data: abcd\n\n" * 3) == [b"abcd"] * 3


def test_a_long_line_takes_time_in_proportion_to_its_length() -> None:
    """Were the beginning looked at again with each part, this would be minutes."""
    part = b"x" * 1000
    fields = DataFields(event_bytes=40_000_000)
    begun = time.process_time()
    found = [fields.feed(chunk) for chunk in [b"data: ", *[part] * 32_000, b"\n\n"]]
    assert time.process_time() - begun < 5
    assert found[-1] == [part * 32_000]
