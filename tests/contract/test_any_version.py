"""What is stored, is an event or is another version's answer may hold fields that are unknown here; what clients send
may not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from contract import GenerationRequest, Job, ModelStatus, Problem, StatusEvent
from contract.cloudevents import EVENT_TYPES, Acceptance, Cancellation, CloudEvent, GenerationProgress
from contract.fields import StrictModel
from contract.problems import FieldError, field_problem
from contract.result import RESULT, result_of_any_version
from tests.support.events import newer, painting, poem

PROBLEM = field_problem([FieldError(field="prompt", detail="is required")]).problem
DOCUMENTS = [
    GenerationRequest(prompt="春", model="poet", n=2),
    poem("a"),
    painting("a", 2),
    Acceptance(model="poet", kind="text"),
    GenerationProgress(model="poet", state="running", text="春"),
    Cancellation(reason="because"),
    CloudEvent(id="1", source="/poet", type="t", extensions={"model": "poet"}, data=b"{}"),
    ModelStatus(name="poet", kind="text", state="ready"),
    StatusEvent(state="queued"),
    Job(
        id="a",
        state="completed",
        model="painter",
        kind="image",
        created_at="2026-01-31T08:00:00Z",
        deadline_at="2026-01-31T08:00:00Z",
        result=painting("a"),
    ),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_fields_of_the_future_are_ignored(document: StrictModel) -> None:
    written = document.model_dump_json()
    # Any name may be that of an extension.
    written = written[:-1] + ',"mood":1}' if isinstance(document, CloudEvent) else newer(written)
    assert type(document).of_any_version(written) == document
    with pytest.raises(ValidationError):
        type(document).model_validate_json(written)


def test_those_of_problems_are_passed_on() -> None:
    read = Problem.of_any_version(newer(PROBLEM.model_dump_json()))
    assert read.model_extra == {"mood": {"glad": True}}
    assert read.errors is not None
    assert read.errors[0].field == "prompt"


@pytest.mark.parametrize("result", [poem("a"), painting("a")])
def test_results_of_either_kind(result: StrictModel) -> None:
    assert result_of_any_version(newer(result.model_dump_json())) == result
    with pytest.raises(ValidationError):
        RESULT.validate_json(newer(result.model_dump_json()))


def test_every_event_has_data_that_any_version_reads() -> None:
    shapes = {shape for row in EVENT_TYPES for shape in row.data}
    assert shapes <= {*map(type, DOCUMENTS), Problem}
