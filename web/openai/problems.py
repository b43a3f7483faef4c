"""Problems as responses: in OpenAI's shape on OpenAI's routes, and as problem documents elsewhere."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from contract.problems import ProblemError
from wire.openai_problems import error_response
from wire.problems import from_http_exception, problem_response

PREFIX = "/v1/"


class ProblemResponses:
    """Of an application below `root_path`."""

    def __init__(self, root_path: str) -> None:
        self._prefix = root_path + PREFIX

    def of(self, path: str, error: ProblemError) -> Response:
        """The response to a request of the whole `path`."""
        return error_response(error) if path.startswith(self._prefix) else problem_response(error)

    async def handle_problem(self, http_request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return self.of(http_request.scope["path"], error)

    async def handle_http_exception(self, http_request: Request, error: Exception) -> Response:
        """For unknown paths and methods, where Starlette raises an HTTPException."""
        assert isinstance(error, HTTPException)
        response = self.of(http_request.scope["path"], from_http_exception(http_request, error))
        response.headers.update(error.headers or {})
        return response
