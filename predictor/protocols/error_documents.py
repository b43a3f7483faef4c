"""Problem documents of the routes.

Every error is an RFC 9457 document. Its extension member `error` is what clients of the route expect: OpenAI's error
object, or KServe's error string.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from kserve.errors import InvalidInput, ModelNotFound, ServerNotLive
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from contract import problems
from contract.problems import FieldError, ProblemError, field_problem
from wire.openai_problems import error_document
from wire.problems import from_http_exception, problem_response, told_document

OPENAI_PREFIX = "/openai/v1"


def document(path: str, error: ProblemError) -> dict[str, Any]:
    """The JSON document of an error of the route `path`."""
    if not path.startswith(OPENAI_PREFIX):
        return told_document(error) | {"error": error.problem.detail}
    return error_document(error)


def respond(path: str, error: ProblemError) -> Response:
    return problem_response(error, document(path, error))


async def handle(http_request: Request, error: Exception) -> Response:
    """Exception handler for ProblemError, and for KServe's and FastAPI's own errors, which become problems."""
    return respond(http_request.url.path, as_problem(error))


async def handle_http_exception(http_request: Request, error: Exception) -> Response:
    """Exception handler for what starlette and FastAPI raise: unknown paths, wrong methods, unreadable V2 bodies."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return respond(http_request.url.path, ProblemError(problems.MALFORMED_BODY, str(error.detail)))
    response = respond(http_request.url.path, from_http_exception(http_request, error))
    response.headers.update(error.headers or {})
    return response


def as_problem(error: Exception) -> ProblemError:
    """The problem that it is or stands for; raises an error that is none of `KSERVE_ERRORS`."""
    match error:
        case ProblemError():
            return error
        case RequestValidationError():
            return _body_problem(error)
        case ModelNotFound():
            return ProblemError(problems.UNKNOWN_MODEL, str(error))
        case ServerNotLive():
            return ProblemError(problems.UNAVAILABLE, "The engine makes no progress; only a restart helps.")
        case NotImplementedError():
            return ProblemError(problems.NOT_IMPLEMENTED, str(error) or "This server does not do that.")
        case InvalidInput():
            return ProblemError(problems.MALFORMED_BODY, str(error))
    raise error


def _body_problem(error: RequestValidationError) -> ProblemError:
    """KServe declares a V2 body as "tensors or bytes"; only the first of the two is JSON."""
    errors = []
    for item in error.errors():
        path = [str(part) for part in item["loc"] if part not in ("body", "InferenceRequest")]
        if path != ["bytes"]:
            errors.append(FieldError(field=".".join(path) or "body", detail=str(item["msg"])))
    return field_problem(errors)


KSERVE_ERRORS = (InvalidInput, ModelNotFound, ServerNotLive, NotImplementedError, RequestValidationError)
