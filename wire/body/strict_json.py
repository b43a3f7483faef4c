"""Strict JSON bodies."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from contract import RequestLimits, problems
from contract.problems import ProblemError, invalid_fields

Body = TypeVar("Body", bound=BaseModel)


async def whole_body(http_request: Request) -> bytes:
    """All of it, once: the request keeps none, as it would of `body()`, for a picture is large."""
    return b"".join([part async for part in http_request.stream()])


async def json_body(http_request: Request, model: type[Body], limits: RequestLimits | None = None) -> Body:
    """The body as `model`, within `limits`. UNSUPPORTED_MEDIA_TYPE, MALFORMED_BODY or INVALID_FIELD says what is wrong
    with it."""
    media_type, _, parameters = http_request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "").partition("charset=")[2].partition(";")[0]
    if media_type.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise ProblemError(
            problems.UNSUPPORTED_MEDIA_TYPE,
            f"The body came as {http_request.headers.get('content-type') or 'nothing in particular'}; "
            "send JSON in UTF-8 with the header Content-Type: application/json.",
        )
    coding = http_request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        detail = f"The body came with Content-Encoding: {coding}; send it as it is."
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, detail)
    try:
        return model.model_validate_json(await whole_body(http_request), context=limits)
    except ValidationError as error:
        raise invalid_fields(error, model) from None
