"""How long a client is going to wait."""

from __future__ import annotations

import pytest

from contract import ProblemError
from wire.deadline import request_seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 60),
        ({"x-request-timeout": "5"}, 5),
        ({"x-request-timeout": "0.5"}, 0.5),
        ({"x-request-timeout": "1e9"}, 60),
    ],
)
def test_a_request_has_the_time_it_asks_for_up_to_the_servers_limit(headers: dict[str, str], seconds: float) -> None:
    assert request_seconds(headers, 60) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf", "5s"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ProblemError) as refused:
        request_seconds({"x-request-timeout": text}, 60)
    assert [error.field for error in refused.value.problem.errors or ()] == ["X-Request-Timeout"]
