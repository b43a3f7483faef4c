"""What the body of a response calls the fields of the request that is made of it."""

from __future__ import annotations

from contract.problems import FieldError, ProblemError, with_fields

_NAMES = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "thinking": "reasoning.effort",
    "reasoning_effort": "reasoning.effort",
}


def as_sent(error: ProblemError) -> ProblemError:
    """The problem with its fields as the client wrote them."""
    return with_fields(error, _named)


def _named(one: FieldError) -> FieldError:
    return one.model_copy(update={"field": _sent(one.field), "detail": _told(one.detail)})


def _sent(field: str) -> str:
    first = field.partition(".")[0]
    if first in ("messages", "prompt"):
        return "input"  # whose items have other numbers than the turns that were made of them
    if first in ("tools", "tool_choice"):
        return field.replace(".function", "", 1)
    for name, sent in _NAMES.items():
        if field == name or field.startswith(f"{name}."):
            return sent + field.removeprefix(name)
    return field


def _told(detail: str) -> str:
    return detail.replace("may not stand beside response_format", "may not stand beside text.format")
