"""Python's own CloudEvents SDK reads our events, and we read its events."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent as ForeignEvent
from cloudevents.http import from_http

from tests.support.wire.cloudevents import (
    EVENTS,
    NAMED,
)
from wire.cloudevents import (
    Mode,
    is_json,
    read_events,
    write_event,
)


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
def test_events_of_pythons_sdk_are_read(data: Any, attributes: dict[str, Any]) -> None:
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
def test_pythons_sdk_reads_our_events(name: str, mode: Mode) -> None:
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
