"""Everything that can go wrong, as RFC 9457 problem documents from one table.

The status decides who tries again: Knative Eventing retries 404, 408, 409, 429 and every 5xx, and gives up on other
4xx; HTTP clients commonly do the same. So a problem that would come again has another 4xx, and 404 is for names only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from contract.field_places import FieldPlace
from contract.fields import StrictModel

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:shangcai:problem:"
_MOST_ERRORS = 16  # that are reported of one body; a hostile body could have a hundred thousand
_LONGEST_NAME = 64


@dataclass(frozen=True)
class ProblemType:
    """One row of the table: a stable name, the HTTP status and a short title that never changes."""

    slug: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        return _PREFIX + self.slug

    @property
    def transient(self) -> bool:
        """Whether the same attempt may succeed later, without anybody changing anything."""
        lasting = ("not-implemented", "refused-upstream", "too-late")
        return (self.status in (408, 429) or self.status >= 500) and self.slug not in lasting


MALFORMED_REQUEST = ProblemType("malformed-request", 400, "The request cannot be read as HTTP")
MALFORMED_BODY = ProblemType("malformed-body", 400, "The request body cannot be read")
INVALID_FIELD = ProblemType("invalid-field", 400, "A field of the request is not allowed")
MALFORMED_EVENT = ProblemType("malformed-event", 400, "The request is no CloudEvent that can be read")
PREVIOUS_RESPONSE_NOT_FOUND = ProblemType(
    "previous-response-not-found", 400, "There is no response of this id to go on from"
)
UNAUTHORIZED = ProblemType("unauthorized", 401, "The request does not prove who sent it")
FORBIDDEN = ProblemType("forbidden", 403, "This sender may not do that")
NOT_FOUND = ProblemType("not-found", 404, "There is nothing at this address")
UNKNOWN_MODEL = ProblemType("unknown-model", 404, "No model of this name is served here")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "This address does not take this method")
NOT_ACCEPTABLE = ProblemType("not-acceptable", 406, "The result has no form that the Accept header takes")
HEADER_TIMEOUT = ProblemType("header-timeout", 408, "The request header did not arrive in time")
BODY_TIMEOUT = ProblemType("body-timeout", 408, "The request body did not arrive in time")
CANCELLED = ProblemType("cancelled", 410, "The generation was cancelled")
BODY_TOO_LARGE = ProblemType("body-too-large", 413, "The request body is too large")
OUT_OF_MEMORY = ProblemType("out-of-memory", 413, "The request does not fit into the device's memory")
RESULT_TOO_LARGE = ProblemType("result-too-large", 413, "The result is too large for an event")
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", 415, "The request body is of a type that is not taken")
KEY_REUSED = ProblemType("key-reused", 422, "The Idempotency-Key belongs to another request")
CONTENT_FILTERED = ProblemType("content-filtered", 422, "The model server keeps back what was generated")
QUOTA_EXCEEDED = ProblemType("quota-exceeded", 429, "The caller's share is used up for now")
HEADER_TOO_LARGE = ProblemType("header-too-large", 431, "The request header is too large")
INTERNAL = ProblemType("internal", 500, "The server made a mistake")
NOT_IMPLEMENTED = ProblemType("not-implemented", 501, "This server does not do that")
BAD_UPSTREAM = ProblemType("bad-upstream", 502, "The model server gave no usable answer")
DIVERGED = ProblemType("diverged", 502, "The generation was broken off, and asking again gave another one")
REFUSED_UPSTREAM = ProblemType("refused-upstream", 502, "The model server does not serve this server")
UNDELIVERED = ProblemType("undelivered", 502, "The request did not reach a model server")
LOADING = ProblemType("loading", 503, "The model is still loading")
OVERLOADED = ProblemType("overloaded", 503, "The server is full")
UNAVAILABLE = ProblemType("unavailable", 503, "A server that is needed for this cannot be reached")
STALLED = ProblemType("stalled", 503, "A part of the server has stopped")
UPSTREAM_TIMEOUT = ProblemType("upstream-timeout", 504, "The model server did not answer in time")
TOO_LATE = ProblemType("too-late", 504, "The time that the request was given is over")

PROBLEM_TYPES = (
    MALFORMED_REQUEST,
    MALFORMED_BODY,
    INVALID_FIELD,
    MALFORMED_EVENT,
    PREVIOUS_RESPONSE_NOT_FOUND,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    UNKNOWN_MODEL,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    HEADER_TIMEOUT,
    BODY_TIMEOUT,
    CANCELLED,
    BODY_TOO_LARGE,
    OUT_OF_MEMORY,
    RESULT_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    KEY_REUSED,
    CONTENT_FILTERED,
    QUOTA_EXCEEDED,
    HEADER_TOO_LARGE,
    INTERNAL,
    NOT_IMPLEMENTED,
    BAD_UPSTREAM,
    DIVERGED,
    REFUSED_UPSTREAM,
    UNDELIVERED,
    LOADING,
    OVERLOADED,
    UNAVAILABLE,
    STALLED,
    UPSTREAM_TIMEOUT,
    TOO_LATE,
)


class FieldError(StrictModel):
    """One field that was refused, and why."""

    field: str
    detail: str
    code: str | None = None
    """OpenAI's own name of this mistake, which clients look for."""

    def named(self, field: str) -> FieldError:
        return self.model_copy(update={"field": field})


class Problem(StrictModel):
    """An RFC 9457 document. Members beyond the standard ones depend on the type and are safe to ignore."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None  # the request that was answered with it; what is stored, or is an event, has none
    errors: list[FieldError] | None = None
    retry_after: int | None = None

    @classmethod
    def of_any_version(cls, document: str | bytes) -> Self:
        return cls.model_validate_json(document, extra="allow")  # what is unknown here may tell the client something


class ProblemError(Exception):
    """A problem on its way to the client.

    `retry_after` is in seconds, rounded up to 1 at least; it becomes the Retry-After header, too. `extra` are further
    members of the document.
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        retry_after: float | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.problem = Problem(
            type=kind.uri,
            title=kind.title,
            status=kind.status,
            detail=detail,
            errors=errors,
            retry_after=None if retry_after is None else max(1, math.ceil(retry_after)),
            **extra,
        )

    @property
    def document(self) -> dict[str, Any]:
        return self.problem.model_dump(exclude_none=True)

    @property
    def headers(self) -> dict[str, str]:
        retry_after = self.problem.retry_after
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.kind is UNAUTHORIZED else {})


def raised(problem: Problem) -> ProblemError:
    """The error of a document, whose type may be one that is not in the table."""
    known = next((kind for kind in PROBLEM_TYPES if kind.uri == problem.type), None)
    slug = problem.type.removeprefix(_PREFIX)
    error = ProblemError(known or ProblemType(slug, problem.status, problem.title), problem.detail)
    error.problem = problem
    return error


def of_field(field: str, detail: str) -> PydanticCustomError:
    """For a validator that finds a mistake in another field of the same object than its own."""
    return PydanticCustomError("of_field", "{detail}", {"field": field, "detail": detail})


def internal(retry_after: float | None = None) -> ProblemError:
    """INTERNAL, of which a client learns nothing more."""
    detail = "Something went wrong on the server; its log says what."
    return ProblemError(INTERNAL, detail, retry_after=retry_after)


def invalid_field(field: str, detail: str) -> ProblemError:
    """An INVALID_FIELD problem of one field."""
    return field_problem([FieldError(field=field, detail=detail)])


def invalid_fields(error: ValidationError, body: type[BaseModel]) -> ProblemError:
    """INVALID_FIELD with every field that `body` refused and what is allowed there; MALFORMED_BODY for invalid JSON."""
    found = error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]
    if found[0]["type"] == "json_invalid":
        return ProblemError(MALFORMED_BODY, f"The body is not valid JSON: {found[0]['ctx']['error']}.")
    placed = [(item, FieldPlace.of(body, item["loc"])) for item in found]
    errors: list[FieldError] = []
    listed: set[tuple[int | str, ...]] = set()  # objects whose fields, and unions whose members, have been told
    for item, place in placed:
        path = place.path
        if (fork := place.fork) is not None and path == fork.path:
            tried = [(other.path, other.fork.branch) for _, other in placed if other.fork and other.fork.path == path]
            if any(other != path for other, _ in tried):
                continue  # another branch was meant, whose own mistakes are told
            if len({branch for _, branch in tried}) > 1:
                if path not in listed:
                    listed.add(path)
                    errors.append(_field_error(path, fork.detail))
                continue
        detail = _detail(item)
        match item["type"]:
            case "extra_forbidden" if path[:-1] not in listed:
                listed.add(path[:-1])
                detail += f"; allowed are {', '.join(place.fields_beside)}"
            case "of_field":
                path = (*path[:-1], item["ctx"]["field"])
        errors.append(_field_error(path, f"its name: {detail}" if place.of_name else detail))
    places = {field: place for place, field in enumerate(body.model_fields)}
    errors.sort(key=lambda one: places.get(one.field.partition(".")[0], len(places)))
    return field_problem(errors)


def _field_error(path: Sequence[int | str], detail: str) -> FieldError:
    name = ".".join(str(part)[:_LONGEST_NAME] for part in path)
    return FieldError(field=name or "body", detail=detail)


def _detail(item: ErrorDetails) -> str:
    """What is wrong, without pydantic's own terms and the names of our classes."""
    match item["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "is required"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "input should be an object"
        case "value_error":
            return str(item["ctx"]["error"])
        case "of_field":
            return str(item["ctx"]["detail"])
        case "union_tag_invalid":
            kind, allowed = (item["ctx"][name].replace("'", "") for name in ("discriminator", "expected_tags"))
            return f"{kind} must be one of {allowed}"
        case "union_tag_not_found":
            return f"{item['ctx']['discriminator'].replace(chr(39), '')} is required"
        case "too_long" | "too_short":
            item["msg"] = item["msg"].replace(" after validation", "").replace("Dictionary", "Object")
    return item["msg"][:1].lower() + item["msg"][1:]


def within(place: str, error: ProblemError) -> ProblemError:
    """The problem of a part of a request, with its fields named from the whole: `place.field`."""
    return with_fields(error, lambda one: one.named(f"{place}.{one.field}"))


def renamed(error: ProblemError, names: Mapping[str, str]) -> ProblemError:
    """The problem of a request that was made of another one, where some fields have other `names`."""

    def sent(one: FieldError) -> FieldError:
        name, dot, place = one.field.partition(".")
        return one.named(names.get(name, name) + dot + place)

    return with_fields(error, sent)


def with_fields(error: ProblemError, change: Callable[[FieldError], FieldError]) -> ProblemError:
    """An INVALID_FIELD with each field so changed; any other problem as it is, and one that names no field."""
    if error.kind is not INVALID_FIELD or not error.problem.errors:
        return error
    return field_problem([change(one) for one in error.problem.errors])


def field_problem(errors: list[FieldError]) -> ProblemError:
    """An INVALID_FIELD problem that names each of `errors`."""
    errors = errors[:_MOST_ERRORS]
    detail = "; ".join(f"{error.field}: {error.detail}" for error in errors)
    return ProblemError(INVALID_FIELD, detail, errors=errors)
