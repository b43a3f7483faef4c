"""Problem documents as HTTP responses, and starlette's own errors as problems."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import problems
from contract.problems import Problem, ProblemError, ProblemType
from wire.telemetry.facts import Facts, current_facts

_PREFIX = "urn:shangcai:request:"
_IN_A_URN = "!$&'()*+,;=:@/"  # as they are, beside letters, digits and "-._~" (RFC 8141)


def note_problem(error: ProblemError) -> Facts | None:
    """Name it in the facts of the current request, which are returned."""
    facts = current_facts()
    if facts is not None:
        facts.problem = error.kind.slug
    return facts


def told_problem(error: ProblemError) -> Problem:
    """The problem as the client of the current request is told it, with the request as its instance; it is noted, too.
    The error itself stays as it is: it may be stored, where it is everybody's."""
    facts = note_problem(error)
    if facts is None:
        return error.problem
    return error.problem.model_copy(update={"instance": _PREFIX + quote(facts.request_id, safe=_IN_A_URN)})


def told_document(error: ProblemError) -> dict[str, Any]:
    """The same as a document."""
    return told_problem(error).model_dump(exclude_none=True)


def problem_response(error: ProblemError, document: dict[str, Any] | None = None) -> Response:
    """The response to a problem; `document` is what is told of it, where that has other members."""
    note_problem(error)
    return JSONResponse(
        told_document(error) if document is None else document,
        status_code=error.kind.status,
        headers={"Cache-Control": "no-store", **error.headers},
        media_type=problems.MEDIA_TYPE,
    )


class ProblemHandlers:
    """What Starlette does with problems and with errors of its own: `respond` makes the response of a path."""

    def __init__(
        self, respond: Callable[[str, ProblemError], Response] = lambda _path, error: problem_response(error)
    ) -> None:
        self.respond = respond

    async def problem(self, http_request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return self.respond(http_request.scope["path"], error)

    async def http_exception(self, http_request: Request, error: Exception) -> Response:
        """For unknown paths and methods, where Starlette raises an HTTPException."""
        assert isinstance(error, HTTPException)
        response = self.respond(http_request.scope["path"], from_http_exception(http_request, error))
        response.headers.update(error.headers or {})
        return response


def from_http_exception(http_request: Request, error: HTTPException) -> ProblemError:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return ProblemError(problems.NOT_FOUND, f"There is nothing at {http_request.url.path}.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "other methods")
            return ProblemError(problems.METHOD_NOT_ALLOWED, f"{http_request.url.path} takes {allowed}.")
        case status:
            phrase = HTTPStatus(status).phrase
            return ProblemError(ProblemType(phrase.lower().replace(" ", "-"), status, phrase), str(error.detail))
