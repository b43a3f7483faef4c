"""Conversations."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from contract import GenerationRequest, RequestLimits

CALL = {"id": "a", "function": {"name": "f", "arguments": '"12345"'}}


@pytest.mark.parametrize(
    ("turn", "characters"),
    [
        ({"role": "user", "content": "1234567"}, 7),
        ({"role": "user", "content": [{"type": "text", "text": "123"}, {"type": "text", "text": "4567"}]}, 7),
        ({"role": "assistant", "content": "1", "reasoning_content": "234567"}, 7),
        ({"role": "assistant", "tool_calls": [CALL]}, 8),
    ],
)
def test_all_that_a_template_reads_is_bounded(turn: dict[str, Any], characters: int) -> None:
    body = {"messages": [turn]}
    GenerationRequest.model_validate(body, context=RequestLimits(prompt_chars=characters))
    with pytest.raises(ValidationError, match=f"at most {characters - 1} characters together"):
        GenerationRequest.model_validate(body, context=RequestLimits(prompt_chars=characters - 1))
