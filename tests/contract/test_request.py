"""What may be asked for: every limit from both of its sides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contract import (
    BODY_BYTES,
    GUIDANCE,
    MAX_TOKENS,
    PICTURE_FIELDS,
    PICTURE_SIDE,
    PICTURES,
    PREVIEWS,
    PROMPT_CHARS,
    STEPS,
    STOP_CHARS,
    STOP_SEQUENCES,
    TEXT_FIELDS,
    GenerationRequest,
    RequestLimits,
    invalid_fields,
)
from contract.limits import IMAGE_BYTES

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
    {"thinking": True},
    {"thinking": False},
    {"model": "anything"},
    {"kind": "text"},
    {"kind": "image"},
    {"negative_prompt": ""},
    {"negative_prompt": "雨" * PROMPT_CHARS},
    {"size": "1x1"},
    {"size": f"{PICTURE_SIDE}x{PICTURE_SIDE}"},
    {"size": "63x65"},  # what a model does not take, it refuses itself
    {"steps": 1},
    {"steps": STEPS},
    {"guidance": 0},
    {"guidance": GUIDANCE},
    {"n": 1},
    {"n": PICTURES},
    {"format": "png"},
    {"format": "jpeg"},
    {"format": "webp"},
    {"previews": 0},
    {"previews": PREVIEWS},
    {"image": "iVBORw0K"},
    {"image": "data:image/webp;base64,UklGRg=="},
    {"image": "/9j/" + "A" * (IMAGE_BYTES // 3 * 4 - 4)},
    {"image": "/9j/", "mask": "iVBORw0K", "strength": 1},
    {"image": "/9j/", "mask": None, "strength": 0.01},
    {"image": None, "mask": None, "strength": None},
    {"kind": None, "size": None, "steps": None, "guidance": None, "n": None, "format": None, "previews": None},
    {"max_tokens": None, "temperature": None, "top_p": None, "stop": None, "seed": None, "model": None},
]


@pytest.mark.parametrize("fields", ALLOWED, ids=str)
def test_allowed(fields: dict[str, Any]) -> None:
    body = {"prompt": "x", **fields}
    request = GenerationRequest.model_validate_json(json.dumps(body), context=RequestLimits())
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
    ({"stop": ""}, "stop", "at least 1 character"),
    ({"stop": ["x" * (STOP_CHARS + 1)]}, "stop.0", f"at most {STOP_CHARS} characters"),
    ({"stop": ["x"] * (STOP_SEQUENCES + 1)}, "stop", f"at most {STOP_SEQUENCES} items"),
    ({"stop": [1]}, "stop.0", "valid string"),
    ({"stream": "true"}, "stream", "valid boolean"),
    ({"stream": None}, "stream", "valid boolean"),
    ({"prompt": "x" * 50_000}, "prompt", f"at most {PROMPT_CHARS} characters"),
    ({"prompt": "   "}, "prompt", "more than white space"),
    ({"kind": "song"}, "kind", "should be 'text' or 'image'"),
    ({"negative_prompt": "x" * (PROMPT_CHARS + 1)}, "negative_prompt", f"at most {PROMPT_CHARS} characters"),
    *(
        ({"size": size}, "size", f"must be a width and a height such as 512x512, each from 1 to {PICTURE_SIDE}")
        for size in ("0x0", "0x64", "64x0", "64x2049", "100000x1", "abc", "", "64", "64x", "-64x64", "64X64", "６４x64")
    ),
    ({"size": "64x64\n"}, "size", "must be a width and a height"),
    ({"size": 0}, "size", "valid string"),
    ({"size": 512}, "size", "valid string"),
    ({"size": [64, 64]}, "size", "valid string"),
    ({"steps": 0}, "steps", "greater than or equal to 1"),
    ({"steps": 10_000}, "steps", f"less than or equal to {STEPS}"),
    ({"steps": 1.5}, "steps", "valid integer"),
    ({"guidance": -0.1}, "guidance", "greater than or equal to 0"),
    ({"guidance": GUIDANCE + 1}, "guidance", f"less than or equal to {GUIDANCE:g}"),
    ({"guidance": float("nan")}, "guidance", "finite number"),
    ({"guidance": float("inf")}, "guidance", "finite number"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 100}, "n", f"less than or equal to {PICTURES}"),
    ({"n": True}, "n", "valid integer"),
    ({"seed": 2**70}, "seed", f"less than {2**63}"),
    ({"format": "gif"}, "format", "should be 'png', 'jpeg' or 'webp'"),
    ({"format": "PNG"}, "format", "should be 'png', 'jpeg' or 'webp'"),
    ({"previews": -1}, "previews", "greater than or equal to 0"),
    ({"previews": PREVIEWS + 1}, "previews", f"less than or equal to {PREVIEWS}"),
    ({"image": ""}, "image", "PNG, JPEG or WebP"),
    ({"image": "R0lGODlh"}, "image", "PNG, JPEG or WebP"),
    ({"image": "https://elsewhere.test/cat.png"}, "image", "PNG, JPEG or WebP"),
    ({"image": "data:image/png,iVBORw0K"}, "image", "PNG, JPEG or WebP"),
    ({"image": "/9j/*"}, "image", "is no base64"),
    ({"image": "/9j/A"}, "image", "is no base64"),
    ({"image": "/9j/" + "A" * (IMAGE_BYTES // 3 * 4)}, "image", f"at most {IMAGE_BYTES} bytes"),
    ({"image": 1}, "image", "valid string"),
    ({"image": "/9j/", "mask": "x"}, "mask", "PNG, JPEG or WebP"),
    ({"image": "x", "mask": "/9j/"}, "image", "PNG, JPEG or WebP"),
    ({"mask": "/9j/"}, "mask", "beside image only"),
    ({"strength": 0.5}, "strength", "beside image only"),
    ({"image": None, "strength": 0.5}, "strength", "beside image only"),
    ({"image": "/9j/", "strength": 0}, "strength", "greater than 0"),
    ({"image": "/9j/", "strength": 1.01}, "strength", "less than or equal to 1"),
    ({"image": "/9j/", "strength": "1"}, "strength", "valid number"),
    ({"width": 64}, "width", "unknown field; allowed are "),
    ({"conversation": []}, "conversation", "unknown field; allowed are "),
]


@pytest.mark.parametrize(("fields", "named", "allowed"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_by_name_and_with_what_is_allowed(fields: dict[str, Any], named: str, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GenerationRequest.model_validate_json(json.dumps({"prompt": "x", **fields}), context=RequestLimits())
    [error] = invalid_fields(caught.value, GenerationRequest).problem.errors or []
    assert error.field == named
    assert allowed in error.detail


@pytest.mark.parametrize(("field", "least"), [("prompt", "雨"), ("negative_prompt", "雨"), ("max_tokens", 1)])
def test_a_deployment_sets_how_much_may_be_asked_for(field: str, least: Any) -> None:
    limits = RequestLimits(prompt_chars=7, max_tokens=7)
    for times, context, refused in ((7, limits, False), (8, limits, True), (100_000, None, False)):
        body = json.dumps({"prompt": "x", field: least * times})
        if refused:
            with pytest.raises(ValidationError, match=" 7"):
                GenerationRequest.model_validate_json(body, context=context)
        else:
            GenerationRequest.model_validate_json(body, context=context)


def test_one_stop_text_is_a_list_of_one() -> None:
    assert GenerationRequest(prompt="x", stop="END").stop == ["END"]  # type: ignore[arg-type]


def test_every_field_belongs_to_texts_to_pictures_or_to_both() -> None:
    sampled = {"max_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "logit_bias", "top_logprobs"}
    penalties = {"repetition_penalty", "frequency_penalty", "presence_penalty"}
    templated = {"messages", "system", "raw", "thinking", "reasoning_effort", "chat_template_kwargs"}
    structured = {"response_format", "guided_regex", "guided_choice", "tools", "tool_choice", "parallel_tool_calls"}
    assert sampled | penalties | templated | structured == TEXT_FIELDS
    painted = {"negative_prompt", "size", "steps", "guidance", "n", "format", "previews"}
    assert painted | {"image", "mask", "strength"} == PICTURE_FIELDS
    both = {"prompt", "model", "kind", "seed", "stream", "webhook"}
    assert set(GenerationRequest.model_fields) == TEXT_FIELDS | PICTURE_FIELDS | both


def test_a_request_does_not_change() -> None:
    request = GenerationRequest(prompt="x")
    with pytest.raises(ValidationError):
        request.prompt = "y"  # type: ignore[misc]


@pytest.mark.parametrize("characters", [1, PROMPT_CHARS, 2 * PROMPT_CHARS])
def test_the_longest_request_fits_into_a_body(characters: int) -> None:
    """However it is written: a character outside the BMP is twelve bytes of JSON escapes."""
    limits = RequestLimits(prompt_chars=characters)
    long = "𠀀" * characters
    body = {"prompt": long, "negative_prompt": long, "stop": ["𠀀" * STOP_CHARS] * STOP_SEQUENCES}
    encoded = json.dumps(body).encode()
    assert len(encoded) < limits.body_bytes >= RequestLimits().body_bytes == BODY_BYTES
    GenerationRequest.model_validate_json(encoded, context=limits)
    largest = "data:image/webp;base64,UklG" + "A" * (IMAGE_BYTES // 3 * 4 - 4)
    encoded = json.dumps({**body, "image": largest, "mask": largest}).encode()
    assert len(encoded) < limits.picture_body_bytes
    GenerationRequest.model_validate_json(encoded, context=limits)


def test_a_picture_is_shown_in_no_log() -> None:
    assert "iVBORw0K" not in repr(GenerationRequest(prompt="x", image="iVBORw0K", mask="iVBORw0K"))
