"""The one table of everything that can go wrong, and the documents made from it."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from pydantic import ValidationError

from contract import FieldError, GenerationRequest, Problem, ProblemError, ProblemType, invalid_field, problems

TABLE = {
    "malformed-request": 400,
    "malformed-body": 400,
    "invalid-field": 400,
    "malformed-event": 400,
    "previous-response-not-found": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "unknown-model": 404,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "header-timeout": 408,
    "body-timeout": 408,
    "cancelled": 410,
    "body-too-large": 413,
    "out-of-memory": 413,
    "result-too-large": 413,
    "unsupported-media-type": 415,
    "key-reused": 422,
    "content-filtered": 422,
    "quota-exceeded": 429,
    "header-too-large": 431,
    "internal": 500,
    "not-implemented": 501,
    "bad-upstream": 502,
    "diverged": 502,
    "refused-upstream": 502,
    "undelivered": 502,
    "loading": 503,
    "overloaded": 503,
    "unavailable": 503,
    "stalled": 503,
    "upstream-timeout": 504,
    "too-late": 504,
}


def test_the_table_is_what_clients_rely_on() -> None:
    assert {kind.slug: kind.status for kind in problems.PROBLEM_TYPES} == TABLE
    assert len(problems.PROBLEM_TYPES) == len(TABLE)


def test_every_type_of_the_module_is_in_the_table() -> None:
    defined = {value for value in vars(problems).values() if isinstance(value, ProblemType)}
    assert defined == set(problems.PROBLEM_TYPES)


@pytest.mark.parametrize("kind", problems.PROBLEM_TYPES, ids=lambda kind: kind.slug)
def test_every_row_is_whole(kind: ProblemType) -> None:
    assert kind.uri == f"urn:shangcai:problem:{kind.slug}"
    assert HTTPStatus(kind.status) >= HTTPStatus.BAD_REQUEST
    assert kind.title
    assert not kind.title.endswith(".")


def test_a_document_holds_what_is_known_and_no_nulls() -> None:
    error = ProblemError(problems.NOT_FOUND, "There is nothing at /x.")
    assert error.document == {
        "type": "urn:shangcai:problem:not-found",
        "title": "There is nothing at this address",
        "status": 404,
        "detail": "There is nothing at /x.",
    }
    assert error.headers == {}
    assert str(error) == "There is nothing at /x."


@pytest.mark.parametrize(("given", "seconds"), [(0, 1), (0.2, 1), (1, 1), (1.1, 2), (60, 60)])
def test_retry_after_is_whole_seconds_and_never_now(given: float, seconds: int) -> None:
    error = ProblemError(problems.OVERLOADED, "full", retry_after=given)
    assert error.document["retry_after"] == seconds
    assert error.headers == {"Retry-After": str(seconds)}


def test_further_members_are_members() -> None:
    document = ProblemError(problems.LOADING, "soon", phase="weights").document
    assert document["phase"] == "weights"
    assert Problem.model_validate(document).model_extra == {"phase": "weights"}


def test_one_refused_field() -> None:
    error = invalid_field("prompt", "is required")
    assert error.kind is problems.INVALID_FIELD
    assert error.problem.detail == "prompt: is required"
    assert error.problem.errors == [FieldError(field="prompt", detail="is required")]


def refused(body: str) -> ProblemError:
    with pytest.raises(ValidationError) as caught:
        GenerationRequest.model_validate_json(body)
    return problems.invalid_fields(caught.value, GenerationRequest)


def test_every_refused_field_is_named() -> None:
    error = refused('{"max_tokens": 0, "top_p": 2, "stop": ["a", ""]}')
    assert error.problem.errors is not None
    assert [item.field for item in error.problem.errors] == ["prompt", "max_tokens", "top_p", "stop.1"]
    assert error.problem.detail == "; ".join(f"{item.field}: {item.detail}" for item in error.problem.errors)


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    [error] = refused('{"prompt": "x", "width": 1}').problem.errors or []
    assert error.field == "width"
    assert error.detail == f"unknown field; allowed are {', '.join(GenerationRequest.model_fields)}"


def test_a_hostile_body_gets_a_short_answer() -> None:
    fields = ", ".join(f'"{"x" * 1000}{number}": 0' for number in range(1000))
    error = refused(f'{{"prompt": "x", {fields}}}')
    assert error.problem.errors is not None
    assert len(error.problem.errors) <= 16
    assert len(error.problem.detail) < 5000


def test_a_problem_keeps_unknown_members_and_refuses_wrong_ones() -> None:
    with pytest.raises(ValidationError):
        Problem.model_validate({"type": "x", "title": "x", "status": "404", "detail": "x"})
    with pytest.raises(ValidationError):
        Problem.model_validate({"type": "x", "title": "x", "status": 404})
