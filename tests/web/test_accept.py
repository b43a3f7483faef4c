"""Which form an Accept header chooses."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from web.accept import JSON, SSE, accepted_form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("text/event-stream", SSE),
        ("TEXT/Event-Stream", SSE),
        ("text/*", SSE),
        ("text/event-stream, application/json", JSON),
        ("text/event-stream, application/json;q=0.9", SSE),
        ("text/event-stream;q=0.9, */*", JSON),
        ("text/event-stream, */*;q=0.5", SSE),
        ("application/json;q=0, */*", SSE),
        ("application/json;q=0.2, text/*;q=0.3", SSE),
        ("text/event-stream;q=0, text/*, application/json;q=0.1", JSON),
        ("application/json; charset=utf-8; q=0.5, text/event-stream;q=0.4", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (", ,", JSON),
        ("application/json;q=7", JSON),
    ],
)
def test_the_heavier_form_is_chosen(accept: str, form: str) -> None:
    assert accepted_form(Headers({"accept": accept})) == form


def test_several_headers_are_one_list() -> None:
    raw = [(b"accept", b"application/json;q=0.1"), (b"accept", b"text/event-stream")]
    assert accepted_form(Headers(raw=raw)) == SSE


def test_no_header_is_json() -> None:
    assert accepted_form(Headers()) == JSON
