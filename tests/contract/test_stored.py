"""Requests as jobs keep them."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from contract import GenerationRequest
from contract.stored import event_data, request_of, stored_request
from web.jobs.record import ended_request

PLAIN = GenerationRequest(prompt="x", n=2, format="webp", stream=True)
NEWER = GenerationRequest.model_validate({"messages": [{"role": "user", "content": "x"}], "seed": 1})


def test_what_older_replicas_know_is_stored_as_they_do() -> None:
    assert json.loads(stored_request(PLAIN)) == {"prompt": "x", "n": 2, "format": "webp"}


def test_older_replicas_do_not_take_a_newer_request_for_another_one() -> None:
    with pytest.raises(ValidationError):
        GenerationRequest.of_any_version(stored_request(NEWER))


@pytest.mark.parametrize("request_", [PLAIN, NEWER])
def test_it_is_read_again(request_: GenerationRequest) -> None:
    stored = stored_request(request_)
    assert request_of(stored) == request_.model_copy(update={"stream": False})
    assert GenerationRequest.model_validate_json(event_data(stored)) == request_of(stored)


def test_what_is_left_of_an_ended_one_says_what_its_answers_are_made_by() -> None:
    newer = GenerationRequest(prompt="x", n=3, format="jpeg", system="y")
    assert json.loads(ended_request(stored_request(newer))) == {"prompt": "-", "n": 3, "format": "jpeg"}
