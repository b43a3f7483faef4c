"""The part of the OpenAPI description about problems, each with an example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from contract import BODY_BYTES, ProblemType, problems
from contract.limits import HEADER_BYTES, HEADER_FIELDS
from web.http.accept import JSON, SSE
from web.openapi.schemas import ref

RATE_LIMIT = ("RateLimit", "RateLimit-Policy")
"""Fields of what takes from a caller's share."""

_INSTANCE = "urn:shangcai:request:4bf92f3577b34da6a3ce929d0e0e4736"
_OF_NO_REQUEST = {problems.MALFORMED_REQUEST, problems.HEADER_TIMEOUT, problems.HEADER_TOO_LARGE}

# In the order of the statuses.
_DETAILS: dict[ProblemType, str] = {
    problems.MALFORMED_REQUEST: "The request cannot be read: Missing mandatory Host: header.",
    problems.MALFORMED_BODY: "The body is not valid JSON: EOF while parsing an object at line 1 column 1.",
    problems.INVALID_FIELD: "max_tokens: input should be greater than or equal to 1",
    problems.MALFORMED_EVENT: "header ce-id: is required",
    problems.PREVIOUS_RESPONSE_NOT_FOUND: "Previous response with id 'resp_0' not found.",
    problems.UNAUTHORIZED: "Send the header Authorization: Bearer, with your key or token.",
    problems.FORBIDDEN: "source: events from 'urn:somebody:else' are not taken here.",
    problems.NOT_FOUND: "There is no generation of this id; one is forgotten 3600 s after its end.",
    problems.UNKNOWN_MODEL: "There is no model 'bard' here; the models served are: poet.",
    problems.NOT_ACCEPTABLE: f"A text is served as {JSON} or {SSE}.",
    problems.HEADER_TIMEOUT: "The header did not arrive whole within 10 s.",
    problems.BODY_TIMEOUT: "The body did not arrive whole within 10 s.",
    problems.CANCELLED: "The generation was cancelled before its end.",
    problems.BODY_TOO_LARGE: f"A body may have at most {BODY_BYTES} bytes.",
    problems.OUT_OF_MEMORY: "The device has no memory for this request, even alone: 812 tokens so far.",
    problems.RESULT_TOO_LARGE: "The result has 300000 bytes, and an event may have 262144.",
    problems.UNSUPPORTED_MEDIA_TYPE: "The body came as text/plain; send JSON in UTF-8 with the header Content-Type: "
    "application/json.",
    problems.KEY_REUSED: "The first request with this Idempotency-Key asked for something else.",
    problems.CONTENT_FILTERED: "The model server's filter keeps the text back.",
    problems.QUOTA_EXCEEDED: "This caller has sent as many requests as it may for now.",
    problems.HEADER_TOO_LARGE: f"The request line and the header may have at most {HEADER_BYTES} bytes and "
    f"{HEADER_FIELDS} fields.",
    problems.INTERNAL: "Something went wrong on the server; its log says what.",
    problems.NOT_IMPLEMENTED: "Where poet is served is not known here: only a request wakes it.",
    problems.BAD_UPSTREAM: "The model server's answer cannot be used.",
    problems.DIVERGED: "The model server died in the middle, and another answer to the same request does not begin as "
    "this one did.",
    problems.REFUSED_UPSTREAM: "The model server does not take requests from this server.",
    problems.UNDELIVERED: "The broker gave up after the model server's last status, 503: poet is loading.",
    problems.LOADING: "Model poet is waking up (loading the weights, 2.1 s so far), which takes longer than this "
    "request can wait.",
    problems.OVERLOADED: "The model server is full or not ready.",
    problems.UNAVAILABLE: "The model server does not take connections.",
    problems.STALLED: "The claiming of jobs for poet has not gone round for 612 s.",
    problems.UPSTREAM_TIMEOUT: "The model server took too long.",
    problems.TOO_LATE: "The time that the request was given is over.",
}


def refusals(kinds: Iterable[ProblemType]) -> dict[str, Any]:
    """The responses of an operation that can end with these problems, by status."""
    by_status: dict[int, list[ProblemType]] = {}
    for kind in _DETAILS:
        if kind in kinds:
            by_status.setdefault(kind.status, []).append(kind)
    return {str(status): _refusal(status, some) for status, some in by_status.items()}


def _refusal(status: int, kinds: list[ProblemType]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status in (problems.OVERLOADED.status, problems.QUOTA_EXCEEDED.status):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if status == problems.QUOTA_EXCEEDED.status:
        headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in RATE_LIMIT}
    return {
        "description": "; or ".join(f"{kind.title} ({kind.uri})" for kind in kinds) + ".",
        "headers": headers,
        "content": {
            problems.MEDIA_TYPE: {
                "schema": ref("Problem"),  # one class for all in generated clients; later versions may have more
                "examples": {kind.slug: {"value": _example(kind)} for kind in kinds},
            }
        },
    }


def _example(kind: ProblemType) -> dict[str, Any]:
    detail = _DETAILS[kind]
    example: dict[str, Any] = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail}
    if kind not in _OF_NO_REQUEST:
        example["instance"] = _INSTANCE
    if kind in (problems.INVALID_FIELD, problems.MALFORMED_EVENT):
        field, _, reason = detail.partition(": ")
        example["errors"] = [{"field": field, "detail": reason}]
    if kind.status in (problems.OVERLOADED.status, problems.QUOTA_EXCEEDED.status):
        example["retry_after"] = 5
    if kind is problems.QUOTA_EXCEEDED:
        example["violated-policies"] = ["requests"]
    if kind is problems.LOADING:
        example |= {"phase": "loading the weights", "seconds": 2.1, "expected_seconds": 6.1, "retry_after": 4}
    return example
