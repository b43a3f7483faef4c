"""Problems as responses: in OpenAI's shape on OpenAI's routes, and as problem documents elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from contract.problems import ProblemError
from wire.openai_problems import error_response
from wire.problems import problem_response

PREFIX = "/v1/"


def problem_responses(root_path: str) -> Callable[[str, ProblemError], Response]:
    """Makes the responses of an application below `root_path` to a whole path."""
    prefix = root_path + PREFIX

    def respond(path: str, error: ProblemError) -> Response:
        return error_response(error) if path.startswith(prefix) else problem_response(error)

    return respond
