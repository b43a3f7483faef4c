"""How long a client wants to wait, as the Prefer header says it."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from web.http.preferences import RequestPreferences

MOST_WAIT_SECONDS = 580.0


def preferences(*headers: str) -> RequestPreferences:
    return RequestPreferences.of(
        Headers(raw=[(b"prefer", header.encode("latin-1")) for header in headers]), MOST_WAIT_SECONDS
    )


@pytest.mark.parametrize(
    ("headers", "respond_async", "wait"),
    [
        (["respond-async"], True, None),
        (["Respond-Async"], True, None),
        (["respond-async, wait=10"], True, 10),
        (["wait=10,respond-async"], True, 10),
        (["wait=10", "respond-async"], True, 10),
        ([" wait = 10 ; x=y , return=minimal"], False, 10),
        (["respond-async; x"], True, None),
        (['wait="10"'], False, 10),
        (["wait=0"], False, 0),
        (["wait=1, wait=2"], False, 1),
        (['x="a, respond-async, b", wait=3'], False, 3),
        (['wait=3, x="never closed, respond-async'], False, 3),
    ],
)
def test_what_is_preferred(headers: list[str], respond_async: bool, wait: float | None) -> None:
    found = preferences(*headers)
    assert (found.respond_async, found.wait) == (respond_async, wait)
    assert found.outlives_connection


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "=",
        ";",
        "=;,=",
        "return=minimal",
        "wait",
        "wait=",
        "wait=-1",
        "wait=1.5",
        "wait=²",
        "wait=soon",
        "async",
    ],
)
def test_nonsense_is_no_preference(header: str) -> None:
    assert preferences(header) == preferences() == RequestPreferences()
    assert not preferences(header).outlives_connection
    assert preferences(header).wait_seconds is None


@pytest.mark.parametrize("wait", ["581", "9" * 5_000])
def test_a_wait_is_cut_to_the_longest(wait: str) -> None:
    assert preferences(f"wait={wait}").wait == MOST_WAIT_SECONDS


@pytest.mark.parametrize(
    ("header", "wait_seconds", "applied"),
    [
        ("respond-async", 0, "respond-async"),
        ("wait=7", 7, "wait=7"),
        ("WAIT=007, respond-async", 7, "respond-async, wait=7"),
        ("respond-async, wait=0", 0, "respond-async, wait=0"),
        ("wait=99999", 580, "wait=580"),
    ],
)
def test_what_is_applied_is_named(header: str, wait_seconds: float, applied: str) -> None:
    found = preferences(header)
    assert (found.wait_seconds, found.applied) == (wait_seconds, applied)
