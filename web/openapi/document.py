"""The OpenAPI 3.1 description, assembled from the contract's own models so that it cannot drift from them."""

from __future__ import annotations

from typing import Any

from contract import Kind, RequestLimits, problems
from web.http.accept import IMAGES, JSON, MULTIPART, SSE
from web.http.responses import UNDERSTOOD_CHARS
from web.openapi.events import events_operation
from web.openapi.examples import PICTURE_RESULT, PICTURE_STREAM, REQUESTS, TEXT_RESULT, TEXT_STREAM
from web.openapi.jobs import IMAGES_QUERY, PREFERENCES, generation_path, generations_operation, job_response, parameter
from web.openapi.openai import openai_paths, openai_problem
from web.openapi.page import page_path
from web.openapi.picture_file import picture_file_path
from web.openapi.problems import RATE_LIMIT, refusals
from web.openapi.responses import RESPONSE_SCHEMAS, response_paths
from web.openapi.schemas import FILE, IF_NONE_MATCH, NOT_MODIFIED, event_stream, ref, schemas
from web.openapi.status import models_operation, status_operation, warm_operation

_NOT_OF_GENERATE = {
    problems.MALFORMED_EVENT,
    problems.PREVIOUS_RESPONSE_NOT_FOUND,
    problems.FORBIDDEN,
    problems.NOT_FOUND,
    problems.METHOD_NOT_ALLOWED,
    problems.NOT_IMPLEMENTED,
}

_PICTURE_FORMS = (*IMAGES, MULTIPART)


def describe(
    version: str,
    models: dict[str, Kind],
    limits: RequestLimits,
    *,
    callers_known: bool = False,
    root_path: str = "",
) -> dict[str, Any]:
    """The document of this version of web; `models` are the served ones, in their order. With `callers_known`,
    operations need a caller's key or token. `root_path` is the prefix of all paths, without a slash at its end."""
    served = ", ".join(f"{name} ({kind})" for name, kind in models.items())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shangcai",
            "version": version,
            "summary": "From a prompt to a poem or a picture",
            "description": f"Models served here: {served}. A request that names none goes to the first of its kind, "
            "or to the one that its prompt fits; where it says no kind, it is that of the first model.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root_path or "/"}],
        "security": [{"caller": []}] if callers_known else [],
        "tags": _TAGS,
        "paths": {
            "/generate": {"post": _generate()},
            "/generations": {"get": generations_operation()},
            "/generations/{id}": generation_path(_PICTURE_FORMS),
            "/generations/{id}/images/{number}": picture_file_path(),
            **openai_paths(),
            **response_paths(),
            "/events": {"post": events_operation()},
            "/models": {"get": models_operation()},
            "/status": {"get": status_operation()},
            "/warm": {"post": warm_operation()},
            "/healthz": {
                "get": _simple("health", "Whether this server runs", {"status": "ok"}, refusals({problems.STALLED}))
            },
            "/readyz": {
                "get": _simple(
                    "readiness",
                    "Whether requests should come to this replica",
                    {"status": "ready"},
                    refusals({problems.STALLED, problems.UNAVAILABLE}),
                )
            },
            "/openapi.json": {"get": _openapi()},
            "/": page_path(),
        },
        "components": {
            "schemas": {**schemas(limits), **RESPONSE_SCHEMAS, "OpenAIProblem": openai_problem()},
            "headers": _headers(),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


_SECURITY_SCHEMES = {
    "caller": {
        "type": "http",
        "scheme": "bearer",
        "description": "A caller's key or token, where this server tells callers apart. A gateway may do this for it.",
    },
    "sender": {
        "type": "http",
        "scheme": "bearer",
        "description": "Of who delivers events: an OIDC token for this audience, or the secret.",
    },
}

_TAGS = [
    {"name": "generation", "description": "Texts and pictures, at once or on the way."},
    {"name": "openai", "description": "The same for OpenAI's clients."},
    {"name": "jobs", "description": "Generations that outlive the connection they were asked for on."},
    {"name": "models", "description": "Whether models are awake."},
    {"name": "events", "description": "CloudEvents about jobs."},
    {"name": "service", "description": "This server itself."},
]


def _generate() -> dict[str, Any]:
    return {
        "operationId": "generate",
        "tags": ["generation"],
        "summary": "Generate a text or a picture",
        "description": "A request with a Prefer or Idempotency-Key header becomes a job, which goes on when the client "
        "leaves; Location says where it is found. "
        "Without a model, `kind` chooses one, or an Accept header that weighs a picture most. The "
        f"Accept header chooses the form, too: {JSON} (default), {SSE}, and for pictures {', '.join(IMAGES)} (the file "
        f'of one) or {MULTIPART} (the files of several). `"stream": true` chooses {SSE} whatever Accept says; previews '
        "come in that form only.",
        "parameters": [
            *PREFERENCES,
            IMAGES_QUERY,
            parameter("X-Request-Id", "Names the request in logs and in the answer; made up when left out."),
            parameter("traceparent", "W3C trace context, passed on to the model server."),
            parameter("tracestate", "W3C trace context, passed on to the model server."),
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": ref("GenerationRequest"), "examples": REQUESTS}},
        },
        "responses": {
            "200": {
                "description": "The text or the pictures, whole or on the way.",
                "headers": {
                    name: {"$ref": f"#/components/headers/{name}"}
                    for name in ("X-Request-Id", *RATE_LIMIT, *_OF_PICTURES)
                },
                "content": {
                    JSON: {
                        "schema": ref("Result"),
                        "examples": {
                            result.kind: {"value": result.model_dump(mode="json")}
                            for result in (TEXT_RESULT, PICTURE_RESULT)
                        },
                    },
                    SSE: {
                        **event_stream(_EVENTS_TEXT),
                        "examples": {
                            "text": {"value": TEXT_STREAM},
                            "image": {"value": PICTURE_STREAM},
                        },
                    },
                    **{form: {"schema": FILE} for form in IMAGES},
                    MULTIPART: {"schema": FILE | {"description": _PARTS_TEXT}},
                },
            },
            "202": job_response(
                "The job, because the client does not want to wait any longer for its end.", created=True
            ),
            **refusals(set(problems.PROBLEM_TYPES) - _NOT_OF_GENERATE),
        },
    }


_EVENTS_TEXT = (
    "Server-sent events whose data is JSON: any number of `status` (`asleep` and `waking` where the model has to wake "
    "up first, then `queued` and `running`), then of `reasoning`, `token` and `tool_call` or of `progress` and "
    "`preview`, then exactly one `result` or `error`. Comments keep a silent stream open."
)

_OF_PICTURES = {
    "ETag": "names its bytes.",
    "Content-Disposition": "a name to save it under.",
    "X-Model": "the model, percent-encoded.",
    "X-Seed": "its seed, where the model server tells it.",
    "X-Steps": "the denoising steps, where the model server tells them.",
    "X-Understood": "the words of the prompt that the model knows, each percent-encoded UTF-8, with commas between; at "
    f"most {UNDERSTOOD_CHARS} characters. Absent where the model reads any text.",
}

_PARTS_TEXT = (
    "The files in the order of their seeds, each with its own Content-Type, Content-Length, Content-Disposition and "
    "X-Seed."
)


def _simple(
    name: str, summary: str, example: dict[str, Any] | None = None, failures: dict[str, Any] | None = None
) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "object"}}
    if example is not None:
        content["example"] = example
    return {
        "operationId": name,
        "security": [],
        "tags": ["service"],
        "summary": summary,
        "responses": {"200": {"description": summary + ".", "content": {JSON: content}}, **(failures or {})},
    }


def _openapi() -> dict[str, Any]:
    operation = _simple("openapi", "This document")
    return operation | {"parameters": [IF_NONE_MATCH], "responses": operation["responses"] | NOT_MODIFIED}


def _headers() -> dict[str, Any]:
    return {
        "X-Request-Id": {"description": "The name of this request.", "schema": {"type": "string"}},
        "Location": {"description": "Where the job is found.", "schema": {"type": "string"}},
        "Preference-Applied": {"description": "What of Prefer was heeded.", "schema": {"type": "string"}},
        "RateLimit": {
            "description": "Where callers have shares: what is left of this caller's, and in how many seconds all of "
            "it is back, as draft-ietf-httpapi-ratelimit-headers-11 has it.",
            "schema": {"type": "string"},
        },
        "RateLimit-Policy": {"description": "This caller's share, in the same draft.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds until it is worth trying again.", "schema": {"type": "integer"}},
        **{
            name: {"description": f"Of a picture's file: {text}", "schema": {"type": "string"}}
            for name, text in _OF_PICTURES.items()
        },
    }
