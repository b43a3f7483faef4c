"""Problems on OpenAI's routes: OpenAI's error object beside the members of the problem document."""

from __future__ import annotations

from typing import Any

from contract import problems
from contract.openai.error_codes import field_code
from contract.problems import ProblemError
from wire.problems import told_document

_CODES = {
    problems.UNKNOWN_MODEL: "model_not_found",
    problems.PREVIOUS_RESPONSE_NOT_FOUND: "previous_response_not_found",
}
"""OpenAI's own names, where clients look for them."""

_PARAMS = {problems.UNKNOWN_MODEL: "model"}


def error_document(error: ProblemError) -> dict[str, Any]:
    """The problem as it is told, and in `error` what OpenAI's clients raise."""
    errors = error.problem.errors
    return told_document(error) | {
        "error": {
            "message": error.problem.detail,
            "type": "invalid_request_error" if error.kind.status < 500 else "server_error",
            "param": errors[0].field if errors else _PARAMS.get(error.kind),
            "code": field_code(error.problem) or _CODES.get(error.kind, error.kind.slug),
        }
    }
