"""Results and events: what is written can be read, and nothing else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

import contract
from contract import (
    ErrorEvent,
    Event,
    ProblemError,
    ResultEvent,
    StatusEvent,
    TextResult,
    Timing,
    TokenEvent,
    Usage,
    problems,
)

RESULT = ResultEvent(
    id="a",
    model="poet",
    text="春\n天",
    finish_reason="stop",
    usage=Usage(prompt_tokens=1, completion_tokens=2),
    timing=Timing(queue_s=None, first_token_s=0.5, total_s=1.0),
)
EVENTS: list[Event] = [
    StatusEvent(state="queued"),
    StatusEvent(state="running"),
    TokenEvent(text=" 雨\n"),
    RESULT,
    ErrorEvent.model_validate(ProblemError(problems.OVERLOADED, "full", retry_after=3, phase="x").document),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event)
def test_an_event_survives_the_wire(event: Event) -> None:
    written = event.model_dump_json()
    assert "\n" not in written  # server-sent events are lines
    assert type(event).model_validate_json(written) == event


def test_the_names_of_the_events() -> None:
    assert [kind.event for kind in (StatusEvent, TokenEvent, ResultEvent, ErrorEvent)] == [
        "status",
        "token",
        "result",
        "error",
    ]


def test_a_result_event_is_the_json_answer() -> None:
    assert ResultEvent.model_fields.keys() == TextResult.model_fields.keys()
    assert RESULT.model_dump(mode="json") == {
        "id": "a",
        "model": "poet",
        "kind": "text",
        "text": "春\n天",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "timing": {"queue_s": None, "first_token_s": 0.5, "total_s": 1.0},
    }


@pytest.mark.parametrize(
    "change", [{"finish_reason": "content_filter"}, {"kind": "image"}, {"more": 1}, {"text": None}]
)
def test_a_result_holds_nothing_else(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextResult.model_validate({**RESULT.model_dump(), **change})


def test_an_unknown_state_is_no_status() -> None:
    with pytest.raises(ValidationError):
        StatusEvent.model_validate({"state": "asleep"})


def test_everything_exported_is_there_and_nothing_twice() -> None:
    assert len(set(contract.__all__)) == len(contract.__all__)
    assert all(hasattr(contract, name) for name in contract.__all__)
