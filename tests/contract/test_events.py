"""Results and events: what is written can be read, and nothing else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

import contract
from contract import (
    ErrorEvent,
    Event,
    Picture,
    PictureResult,
    PictureResultEvent,
    PictureTiming,
    PreviewEvent,
    ProblemError,
    ProgressEvent,
    ReasoningEvent,
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
PICTURES = PictureResultEvent(
    id="a",
    model="painter",
    images=[Picture(data="eA==", media_type="image/png", seed=7, width=64, height=48)],
    steps=20,
    understood=["猫"],
    timing=PictureTiming(queue_s=None, total_s=1.0),
)
EVENTS: list[Event] = [
    StatusEvent(state="pending"),
    StatusEvent(state="queued"),
    StatusEvent(state="running"),
    StatusEvent(state="waking", phase="importing torch", seconds=1.5, expected_seconds=6.1),
    ReasoningEvent(text="hm\n"),
    TokenEvent(text=" 雨\n"),
    RESULT,
    RESULT.model_copy(update={"reasoning_content": "hm"}),
    ProgressEvent(step=3, of=20, eta_s=0.5),
    PreviewEvent(image=0, step=None, data="eA==", media_type="image/jpeg"),
    PICTURES,
    ErrorEvent.model_validate(ProblemError(problems.OVERLOADED, "full", retry_after=3, phase="x").document),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event)
def test_an_event_survives_the_wire(event: Event) -> None:
    written = event.model_dump_json()
    assert "\n" not in written  # server-sent events are lines
    assert type(event).model_validate_json(written) == event


def test_the_names_of_the_events() -> None:
    assert [event.event for event in EVENTS] == [
        "status",
        "status",
        "status",
        "status",
        "reasoning",
        "token",
        "result",
        "result",
        "progress",
        "preview",
        "result",
        "error",
    ]


def test_a_status_says_nothing_of_what_is_not_known() -> None:
    assert StatusEvent(state="queued").model_dump_json() == '{"state":"queued"}'
    assert StatusEvent(state="waking", seconds=0.0).model_dump_json() == '{"state":"waking","seconds":0.0}'


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


def test_a_picture_result_event_is_the_json_answer() -> None:
    assert PictureResultEvent.model_fields.keys() == PictureResult.model_fields.keys()
    assert PICTURES.model_dump(mode="json") == {
        "id": "a",
        "model": "painter",
        "kind": "image",
        "images": [{"data": "eA==", "media_type": "image/png", "seed": 7, "width": 64, "height": 48}],
        "steps": 20,
        "understood": ["猫"],
        "timing": {"queue_s": None, "total_s": 1.0},
    }


def test_no_picture_is_no_result() -> None:
    with pytest.raises(ValidationError):
        PictureResult.model_validate({**PICTURES.model_dump(), "images": []})


@pytest.mark.parametrize(
    "change", [{"finish_reason": "content_filter"}, {"kind": "image"}, {"more": 1}, {"text": None}]
)
def test_a_result_holds_nothing_else(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextResult.model_validate({**RESULT.model_dump(), **change})


def test_an_unknown_state_is_no_status() -> None:
    with pytest.raises(ValidationError):
        StatusEvent.model_validate({"state": "drowsy"})


def test_everything_exported_is_there_and_nothing_twice() -> None:
    assert len(set(contract.__all__)) == len(contract.__all__)
    assert all(hasattr(contract, name) for name in contract.__all__)
