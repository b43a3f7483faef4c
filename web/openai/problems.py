"""Problems as responses: in OpenAI's shape on OpenAI's routes, and as problem documents elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from contract.problems import ProblemError
from wire.openai_problems import error_document
from wire.problems import problem_response

PREFIX = "/v1"


def problem_responses(root_path: str) -> Callable[[str, ProblemError], Response]:
    """Makes the responses of an application below `root_path` to a whole path."""
    prefix = root_path + PREFIX

    def respond(path: str, error: ProblemError) -> Response:
        return problem_response(error, error_document(error) if f"{path}/".startswith(f"{prefix}/") else None)

    return respond
