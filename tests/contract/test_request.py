"""What may be asked for: every limit from both of its sides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contract import BODY_BYTES, MAX_TOKENS, PROMPT_CHARS, STOP_CHARS, STOP_SEQUENCES, GenerationRequest, invalid_fields

ALLOWED: list[dict[str, Any]] = [
    {"prompt": "x"},
    {"prompt": "雨" * PROMPT_CHARS},
    {"max_tokens": 1},
    {"max_tokens": MAX_TOKENS},
    {"temperature": 0},
    {"temperature": 2.0},
    {"top_p": 0.001},
    {"top_p": 1},
    {"seed": 0},
    {"seed": 2**63 - 1},
    {"stop": []},
    {"stop": ["x" * STOP_CHARS] * STOP_SEQUENCES},
    {"stream": True},
    {"model": "anything"},
    {"max_tokens": None, "temperature": None, "top_p": None, "stop": None, "seed": None, "model": None},
]


@pytest.mark.parametrize("fields", ALLOWED, ids=str)
def test_allowed(fields: dict[str, Any]) -> None:
    body = {"prompt": "x", **fields}
    request = GenerationRequest.model_validate_json(json.dumps(body))
    assert {name: getattr(request, name) for name in body} == body


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "prompt", "at least 1 character"),
    ({"prompt": "\n\t\u3000"}, "prompt", "more than white space"),
    ({"prompt": "x" * (PROMPT_CHARS + 1)}, "prompt", f"at most {PROMPT_CHARS} characters"),
    ({"prompt": 1}, "prompt", "valid string"),
    ({"prompt": ["x"]}, "prompt", "valid string"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": MAX_TOKENS + 1}, "max_tokens", f"less than or equal to {MAX_TOKENS}"),
    ({"max_tokens": "1"}, "max_tokens", "valid integer"),
    ({"max_tokens": 1.5}, "max_tokens", "valid integer"),
    ({"max_tokens": True}, "max_tokens", "valid integer"),
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"temperature": float("nan")}, "temperature", "finite number"),
    ({"temperature": float("inf")}, "temperature", "finite number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
    ({"seed": -1}, "seed", "greater than or equal to 0"),
    ({"seed": 2**63}, "seed", f"less than {2**63}"),
    ({"stop": ""}, "stop.0", "at least 1 character"),
    ({"stop": ["x" * (STOP_CHARS + 1)]}, "stop.0", f"at most {STOP_CHARS} characters"),
    ({"stop": ["x"] * (STOP_SEQUENCES + 1)}, "stop", f"at most {STOP_SEQUENCES} items"),
    ({"stop": [1]}, "stop.0", "valid string"),
    ({"stream": "true"}, "stream", "valid boolean"),
    ({"stream": None}, "stream", "valid boolean"),
    ({"n": 1}, "n", "unknown field; allowed are "),
    ({"messages": []}, "messages", "unknown field; allowed are "),
]


@pytest.mark.parametrize(("fields", "named", "allowed"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_by_name_and_with_what_is_allowed(fields: dict[str, Any], named: str, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GenerationRequest.model_validate_json(json.dumps({"prompt": "x", **fields}))
    [error] = invalid_fields(caught.value, GenerationRequest).problem.errors or []
    assert error.field == named
    assert allowed in error.detail


def test_one_stop_text_is_a_list_of_one() -> None:
    assert GenerationRequest(prompt="x", stop="END").stop == ["END"]  # type: ignore[arg-type]


def test_a_request_does_not_change() -> None:
    request = GenerationRequest(prompt="x")
    with pytest.raises(ValidationError):
        request.prompt = "y"  # type: ignore[misc]


def test_the_longest_request_fits_into_a_body() -> None:
    """However it is written: a character outside the BMP is twelve bytes of JSON escapes."""
    body = {"prompt": "𠀀" * PROMPT_CHARS, "stop": ["𠀀" * STOP_CHARS] * STOP_SEQUENCES}
    encoded = json.dumps(body).encode()
    assert len(encoded) < BODY_BYTES
    GenerationRequest.model_validate_json(encoded)
