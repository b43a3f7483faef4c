"""Events: their attributes, their names, and the catalogue of types."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from contract import GenerationRequest, ProblemError, TextResult, Timing, Usage, problems
from contract import cloudevents as catalogue
from contract.cloudevents import (
    ATTRIBUTE_CHARS,
    ATTRIBUTES,
    COMPLETED,
    EVENT_TYPES,
    FAILED,
    REQUESTED,
    CloudEvent,
    EventType,
    GenerationProgress,
    now,
)

NAMED: dict[str, Any] = {"id": "a-1", "source": "/poets/李白", "type": REQUESTED}


def refused(**attributes: Any) -> str:
    """The place of the only error."""
    with pytest.raises(ValidationError) as caught:
        CloudEvent(**{**NAMED, **attributes})
    [error] = caught.value.errors()
    return ".".join(map(str, error["loc"]))


def test_an_event_needs_little() -> None:
    event = CloudEvent(**NAMED)
    assert event.specversion == "1.0"
    assert event.attributes == {"specversion": "1.0", **NAMED}
    assert event.data is None


def test_attributes_come_in_the_order_of_the_specification() -> None:
    event = CloudEvent(
        **NAMED,
        dataschema="urn:x",
        datacontenttype="application/json",
        time="2026-01-31T08:00:00Z",
        subject="s",
        extensions={"traceparent": "t", "a": ""},
    )
    assert list(event.attributes) == [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "traceparent",
        "a",
    ]


def test_source_and_id_tell_events_apart() -> None:
    event = CloudEvent(**NAMED)
    assert event.key == ("/poets/李白", "a-1")
    assert event.model_copy(update={"type": FAILED}).key == event.key
    assert CloudEvent(**{**NAMED, "source": "/poets"}).key != event.key


def test_an_event_does_not_print_its_data() -> None:
    """Prompts are nobody's business who reads the log."""
    assert "secret" not in repr(CloudEvent(**NAMED, data=b"secret"))


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"])
@pytest.mark.parametrize("value", ["", 1, "x" * (ATTRIBUTE_CHARS + 1), "a\r\nSet-Cookie: b", "\x00", "\x7f", "\x85"])
def test_an_attribute_is_a_short_text_without_control_characters(name: str, value: Any) -> None:
    assert refused(**{name: value}) == name


@pytest.mark.parametrize(
    "name", ["my-attribute", "my_attribute", "Subject", "ünï", "名", "", " ", "a\n", "data_base64"]
)
def test_an_extension_is_named_with_lower_case_letters_and_digits(name: str) -> None:
    assert refused(extensions={name: "x"}) == f"extensions.{name}.[key]"


@pytest.mark.parametrize("name", ["data", *sorted(ATTRIBUTES)])
def test_an_extension_hides_no_attribute(name: str) -> None:
    assert refused(extensions={name: "x"}) == f"extensions.{name}.[key]"


@pytest.mark.parametrize("value", [1, True, None, "x" * (ATTRIBUTE_CHARS + 1), "a\nb"])
def test_an_extension_is_a_short_text_without_control_characters(value: Any) -> None:
    assert refused(extensions={"name": value}) == "extensions.name"


def test_an_extension_may_be_empty() -> None:
    """As tracestate is, from some tracers."""
    assert CloudEvent(**NAMED, extensions={"tracestate": ""}).attributes["tracestate"] == ""


@pytest.mark.parametrize("version", ["0.3", "1.0.2", "1", "2.0", ""])
def test_there_is_one_version(version: str) -> None:
    assert refused(specversion=version) == "specversion"


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T08:00:00Z",
        "2026-01-31t08:00:00z",
        "2026-01-31T08:00:00.5+08:00",
        "2026-01-31T08:00:00.123456789Z",  # Go's clock
    ],
)
def test_a_time_is_kept_as_it_was_written(time: str) -> None:
    assert CloudEvent(**NAMED, time=time).time == time


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "2026-01-31",
        "2026-01-31T08:00:00",
        "2026-01-31 08:00:00Z",
        "2026-02-30T08:00:00Z",
        "2026-01-31T24:01:00Z",
        "20260131T080000Z",
        "2026-W05-6T08:00:00Z",
        "２０２６-01-31T08:00:00Z",
        "1769846400",
    ],
)
def test_a_time_must_be_of_rfc_3339(time: str) -> None:
    assert refused(time=time) == "time"


def test_now_is_a_time() -> None:
    time = now()
    CloudEvent(**NAMED, time=time)
    age = datetime.now().astimezone() - datetime.fromisoformat(time)
    assert timedelta(0) <= age + timedelta(milliseconds=1) < timedelta(minutes=1)


def test_an_event_around_data_says_that_it_is_json() -> None:
    event = CloudEvent(**NAMED).with_data(GenerationRequest(prompt="春雨", seed=7))
    assert event.datacontenttype == "application/json"
    assert event.data is not None
    assert GenerationRequest.model_validate_json(event.data) == GenerationRequest(prompt="春雨", seed=7)
    assert b"null" not in event.data
    assert "春雨".encode() in event.data


def test_a_result_says_what_is_not_known() -> None:
    """Its document is the same wherever it comes from."""
    result = TextResult(
        id="a",
        model="poet",
        text="春",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        timing=Timing(queue_s=None, first_token_s=0.5, total_s=1.0),
    )
    assert CloudEvent(**NAMED).with_data(result).data == result.model_dump_json().encode()


def test_the_catalogue_is_what_consumers_rely_on() -> None:
    assert [row.name.removeprefix("ai.shangcai.generation.") for row in EVENT_TYPES] == [
        "requested.v1",
        "accepted.v1",
        "progress.v1",
        "completed.v1",
        "failed.v1",
        "cancelled.v1",
    ]


def test_every_type_of_the_module_is_in_the_catalogue() -> None:
    names = {value for value in vars(catalogue).values() if isinstance(value, str) and value.endswith(".v1")}
    assert names == {row.name for row in EVENT_TYPES}


@pytest.mark.parametrize("row", EVENT_TYPES, ids=lambda row: row.name)
def test_every_row_is_whole(row: EventType) -> None:
    assert row.data
    assert row.meaning.endswith(".")
    assert [kind.model_json_schema() for kind in row.data]


def test_a_reply_never_has_the_type_of_a_request() -> None:
    """Or a broker would deliver the answer to a request as the next one."""
    assert REQUESTED not in {row.name for row in EVENT_TYPES if row.sender != "anyone"}
    assert COMPLETED in {row.name for row in EVENT_TYPES if row.sender == "predictor"}


def test_progress_of_a_model_that_is_loading_has_no_steps() -> None:
    progress = GenerationProgress(model="poet", state="loading", phase="weights", seconds=1.5)
    assert progress.model_dump(exclude_none=True).keys() == {"model", "state", "phase", "seconds"}


def test_what_a_failed_event_holds_is_a_problem() -> None:
    error = ProblemError(problems.INVALID_FIELD, "prompt: is required")
    data = CloudEvent(**{**NAMED, "type": FAILED}).with_data(error.problem).data
    assert type(error.problem).model_validate_json(data or b"") == error.problem
