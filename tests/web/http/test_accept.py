"""Which form an Accept header chooses."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from contract import GenerationRequest, ProblemError
from web.http.accept import JSON, MULTIPART, SSE, picture_form, prefers_picture, text_form
from web.http.quality_values import MOST_ITEMS


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
    assert text_form(Headers({"accept": accept})) == form


def test_several_headers_are_one_list() -> None:
    raw = [(b"accept", b"application/json;q=0.1"), (b"accept", b"text/event-stream")]
    assert text_form(Headers(raw=raw)) == SSE


def test_more_ranges_than_anybody_needs_are_not_read() -> None:
    """Reading all that a header may hold, for each form, held up everybody else."""
    rest = [b"text/html"] * MOST_ITEMS
    assert text_form(Headers(raw=[(b"accept", b",".join([b"text/event-stream", *rest]))])) == SSE
    with pytest.raises(ProblemError):
        text_form(Headers(raw=[(b"accept", b",".join([*rest, b"text/event-stream"]))]))


def test_no_header_is_json() -> None:
    assert text_form(Headers()) == JSON


@pytest.mark.parametrize(
    ("accept", "fields", "form"),
    [
        ("*/*", {}, JSON),
        ("*/*", {"format": "webp"}, JSON),
        ("text/event-stream", {}, SSE),
        ("image/*", {}, "image/png"),
        ("image/*", {"format": "webp"}, "image/webp"),
        ("image/jpeg", {}, "image/jpeg"),
        ("image/jpeg", {"format": "jpeg", "n": 1}, "image/jpeg"),
        ("image/webp;q=0.5, image/png;q=0.4", {}, "image/webp"),
        ("image/webp, image/png;q=0.4", {"format": "png"}, "image/png"),
        ("image/png, application/json;q=0.1", {"format": "webp"}, JSON),
        ("image/png, application/json;q=0.1", {"n": 2}, JSON),
        ("image/png, multipart/mixed;q=0.1", {"n": 2}, MULTIPART),
        ("multipart/*", {}, MULTIPART),
        ("image/png, application/json", {}, JSON),
    ],
)
def test_the_heaviest_form_that_fits_the_pictures_is_chosen(accept: str, fields: dict[str, object], form: str) -> None:
    request = GenerationRequest.model_validate({"prompt": "x", **fields})
    assert picture_form(Headers({"accept": accept}), request) == form


@pytest.mark.parametrize(
    ("accept", "fields", "problem"),
    [
        (
            "image/*",
            {"n": 2},
            "n: must be 1 where only image/png is accepted; several pictures need Accept: application/json or "
            "multipart/mixed",
        ),
        (
            "image/png",
            {"format": "webp"},
            "format: is webp, and the Accept header takes image/png instead; leave one out",
        ),
        (
            "image/gif",
            {},
            "A picture is served as application/json, text/event-stream, image/png, image/jpeg, image/webp or "
            "multipart/mixed.",
        ),
    ],
)
def test_a_request_that_no_form_fits_says_what_to_change(accept: str, fields: dict[str, object], problem: str) -> None:
    request = GenerationRequest.model_validate({"prompt": "x", **fields})
    with pytest.raises(ProblemError) as refused:
        picture_form(Headers({"accept": accept}), request)
    assert refused.value.problem.detail == problem


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        ("image/png", True),
        ("image/*", True),
        ("multipart/mixed", True),
        ("image/webp, */*;q=0.8", True),
        ("image/png;q=0.2, application/json;q=0.1", True),
        ("image/png, application/json", False),
        ("image/png;q=0", False),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_an_accept_header_may_prefer_a_picture(accept: str, preferred: bool) -> None:
    assert prefers_picture(Headers({"accept": accept})) is preferred
