"""The part of the OpenAPI description about jobs and CloudEvents."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from contract import problems
from contract.cloudevents import COMPLETED
from web.http.accept import JSON, SSE
from web.http.idempotency_key import KEY_CHARS
from web.http.responses import JOB_HEADERS
from web.openapi.problems import refusals
from wire.cloudevents import BATCHED, STRUCTURED

_JOB = {
    "id": "961886f8a3ba4f0d8563985a1e55c980",
    "state": "queued",
    "model": "poet",
    "kind": "text",
    "position": 3,
    "created_at": "2026-01-31T08:00:00.000Z",
    "deadline_at": "2026-01-31T09:00:00.000Z",
}


def ref(model: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model}"}


def parameter(name: str, description: str, *, location: str = "header", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": location, "description": description, "schema": {"type": "string", **more}}


PREFERENCES = (
    parameter(
        "Prefer",
        "RFC 7240: `respond-async` makes a job and answers 202 at once, with `wait=n` after n seconds at the latest; "
        "`wait=n` alone does the same.",
    ),
    parameter(
        "Idempotency-Key",
        "Makes a job that is made once only: the same key and body find it again, running or ended.",
        maxLength=KEY_CHARS,
    ),
    parameter("X-Request-Timeout", "Seconds after which the result is of no use any more."),
)

_LAST_EVENT = parameter("Last-Event-ID", f"With {SSE}: go on after this event.")


def job_response(description: str, *, created: bool = False) -> dict[str, Any]:
    """A response that is a job; `created`: by this request, so that it has the headers of a new job."""
    names = ["X-Request-Id", *(JOB_HEADERS if created else ()), "Retry-After"]
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {JSON: {"schema": ref("Job"), "examples": {"queued": {"value": _JOB}}}},
    }


def generation_path(picture_forms: Collection[str]) -> dict[str, Any]:
    """`/generations/{id}`; `picture_forms` are those that only pictures have."""
    of_a_job = refusals({problems.NOT_FOUND, problems.UNAVAILABLE, problems.INTERNAL})
    shown = job_response("The job; or what happens to it; or its pictures.")
    shown["content"] |= {SSE: {"schema": {"type": "string"}}, **{form: {} for form in picture_forms}}
    failures = set(problems.PROBLEM_TYPES) - {
        problems.MALFORMED_BODY,
        problems.MALFORMED_EVENT,
        problems.UNAUTHORIZED,
        problems.FORBIDDEN,
        problems.METHOD_NOT_ALLOWED,
        problems.BODY_TIMEOUT,
        problems.BODY_TOO_LARGE,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.KEY_REUSED,
        problems.NOT_IMPLEMENTED,
    }
    return {
        "parameters": [{**parameter("id", "Of the job.", location="path"), "required": True}],
        "get": {
            "operationId": "generation",
            "summary": "A job: its state, its events, or its result",
            "description": f"The Accept header chooses: {JSON} (default) is the job with its result or its error, "
            f"{SSE} what was told and is being told of it, and {', '.join(picture_forms)} the pictures themselves, "
            "which are a 202 with the job before there are any, and the problem where there will be none.",
            "parameters": [_LAST_EVENT],
            "responses": {
                "200": shown,
                "202": job_response("The job, because there are no pictures yet."),
                "204": {"description": "There is nothing after Last-Event-ID: it was the end. Do not connect again."},
                **refusals(failures),
            },
        },
        "delete": {
            "operationId": "cancel",
            "summary": "Cancel a job",
            "description": "Nothing is computed for it from the next token or step on. An ended job stays as it is.",
            "responses": {"200": job_response("The job, which has ended."), **of_a_job},
        },
    }


def events_operation() -> dict[str, Any]:
    event = {"type": "object", "description": f"A CloudEvent, such as {COMPLETED}; see docs/events.md."}
    return {
        "operationId": "events",
        "summary": "Deliver CloudEvents about jobs",
        "description": "For the Triggers of a Broker. Binary mode is taken, too. Events about jobs that are unknown or "
        "have ended are taken and change nothing.",
        "parameters": [parameter("Authorization", "Bearer with an OIDC token for this audience, or with the secret.")],
        "requestBody": {
            "required": True,
            "content": {STRUCTURED: {"schema": event}, BATCHED: {"schema": {"type": "array", "items": event}}},
        },
        "responses": {
            "204": {"description": "Taken."},
            **refusals(
                {
                    problems.INVALID_FIELD,
                    problems.MALFORMED_EVENT,
                    problems.UNAUTHORIZED,
                    problems.FORBIDDEN,
                    problems.BODY_TIMEOUT,
                    problems.BODY_TOO_LARGE,
                    problems.UNSUPPORTED_MEDIA_TYPE,
                    problems.UNAVAILABLE,
                }
            ),
        },
    }
