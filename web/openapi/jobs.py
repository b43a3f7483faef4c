"""The part of the OpenAPI description about jobs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from contract import problems
from web.http.accept import JSON, SSE
from web.http.idempotency_key import KEY_CHARS
from web.http.page_query import DEFAULT_LIMIT, MOST_LIMIT
from web.http.responses import JOB_HEADERS
from web.openapi.problems import RATE_LIMIT, refusals
from web.openapi.schemas import FILE, IF_NONE_MATCH, NOT_MODIFIED, event_stream, ref

_JOB = {
    "id": "961886f8a3ba4f0d8563985a1e55c980",
    "state": "queued",
    "model": "poet",
    "kind": "text",
    "position": 3,
    "expected_seconds": 7.5,
    "created_at": "2026-01-31T08:00:00.000Z",
    "deadline_at": "2026-01-31T09:00:00.000Z",
}


def parameter(name: str, description: str, *, location: str = "header", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": location, "description": description, "schema": {"type": "string", **more}}


_LINKS = {
    operation: {"operationId": operation, "parameters": {"id": "$response.body#/id"}, "description": description}
    for operation, description in (("generation", "How it goes on."), ("cancel", "Give it up."))
}

PREFERENCES = (
    parameter(
        "Prefer",
        "RFC 7240: `respond-async` makes a job and answers 202 at once, with `wait=n` after n seconds at the latest; "
        "`wait=n` alone does the same. A longer wait than any request may take (GENERATE_SECONDS) is cut to that, as "
        "Preference-Applied says.",
    ),
    parameter(
        "Idempotency-Key",
        "Makes a job that is made once only: the same key and body find it again, running or ended.",
        maxLength=KEY_CHARS,
        pattern="^[!-~]*[!#-~][!-~]*$",  # visible ASCII, and not quotes alone
    ),
    parameter(
        "X-Request-Timeout",
        "Seconds after which the result is of no use any more.",
        pattern="^([1-9][0-9]{0,5}([.][0-9]{1,3})?|0[.][1-9][0-9]{0,2})$",  # in less than 0.1 nothing can be done
    ),
)

IMAGES_QUERY = parameter(
    "images",
    "Of a JSON answer or a result event: `url` has the addresses of pictures, signed and for a while, in the place of "
    "their files; a request that asks for them becomes a job.",
    location="query",
    enum=["data", "url"],
)

_LAST_EVENT = parameter("Last-Event-ID", f"With {SSE}: go on after this event.")


def job_response(description: str, *, created: bool = False) -> dict[str, Any]:
    """A response that is a job; `created`: by this request, so that it has the headers of a new job."""
    names = ["X-Request-Id", *((*JOB_HEADERS, *RATE_LIMIT) if created else ()), "Retry-After"]
    response = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {JSON: {"schema": ref("Job"), "examples": {"queued": {"value": _JOB}}}},
    }
    return response | {"links": _LINKS} if created else response


OUTCOMES = set(problems.PROBLEM_TYPES) - {
    problems.MALFORMED_BODY,
    problems.MALFORMED_EVENT,
    problems.PREVIOUS_RESPONSE_NOT_FOUND,
    problems.FORBIDDEN,
    problems.METHOD_NOT_ALLOWED,
    problems.BODY_TIMEOUT,
    problems.BODY_TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.KEY_REUSED,
    problems.QUOTA_EXCEEDED,
    problems.NOT_IMPLEMENTED,
}
"""Problems of who asks for a job, its own among them."""


def generation_path(picture_forms: Collection[str]) -> dict[str, Any]:
    """`/generations/{id}`; `picture_forms` are those that only pictures have."""
    of_a_job = refusals({problems.UNAUTHORIZED, problems.NOT_FOUND, problems.UNAVAILABLE, problems.INTERNAL})
    shown = job_response("The job; or what happens to it; or its pictures.")
    shown["content"] |= {
        SSE: event_stream("What happens to it, as in the stream of a request."),
        **{form: {"schema": FILE} for form in picture_forms},
    }
    return {
        "parameters": [{**parameter("id", "Of the job.", location="path"), "required": True}],
        "get": {
            "operationId": "generation",
            "tags": ["jobs"],
            "summary": "A job: its state, its events, or its result",
            "description": f"The Accept header chooses: {JSON} (default) is the job with its result or its error, "
            f"{SSE} what was told and is being told of it, and {', '.join(picture_forms)} the pictures themselves, "
            "which are a 202 with the job before there are any, and the problem where there will be none.",
            "parameters": [IMAGES_QUERY, _LAST_EVENT, IF_NONE_MATCH],
            "responses": {
                "200": shown,
                "202": job_response("The job, because there are no pictures yet."),
                "204": {"description": "There is nothing after Last-Event-ID: it was the end. Do not connect again."},
                **NOT_MODIFIED,
                **refusals(OUTCOMES),
            },
        },
        "delete": {
            "operationId": "cancel",
            "tags": ["jobs"],
            "summary": "Cancel a job, or delete an ended one",
            "description": "Of one that has not ended, nothing is computed from the next token or step on. One that "
            "has ended is deleted with its result and its events.",
            "responses": {
                "200": job_response("The job, which has ended."),
                "204": {"description": "The job had ended, and is deleted."},
                **of_a_job,
            },
        },
    }


def generations_operation() -> dict[str, Any]:
    """`GET /generations`."""
    whole = {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT}
    document = {"generations": [{name: value for name, value in _JOB.items() if name != "position"}]}
    return {
        "operationId": "generations",
        "tags": ["jobs"],
        "summary": "One's own jobs, the newest first",
        "description": "Of callers that are told apart. What each job has come to is at its own address.",
        "parameters": [
            parameter("limit", "Most jobs of a page.", location="query", **whole),
            parameter("after", "`next` of the page before this one.", location="query"),
        ],
        "responses": {
            "200": {
                "description": "A page of jobs.",
                "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
                "content": {JSON: {"schema": ref("JobList"), "examples": {"one": {"value": document}}}},
            },
            **refusals(
                {
                    problems.INVALID_FIELD,
                    problems.UNAUTHORIZED,
                    problems.FORBIDDEN,
                    problems.UNAVAILABLE,
                    problems.INTERNAL,
                }
            ),
        },
    }
