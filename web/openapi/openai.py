"""The part of the OpenAPI description about OpenAI's routes. Their documents are OpenAI's, which describes them."""

from __future__ import annotations

from typing import Any

from contract import problems
from web.http.accept import JSON, SSE
from web.openapi.jobs import parameter
from web.openapi.problems import RATE_LIMIT, refusals
from web.openapi.schemas import ref

_NOT_OF_GENERATIONS = {
    problems.MALFORMED_EVENT,
    problems.PREVIOUS_RESPONSE_NOT_FOUND,
    problems.FORBIDDEN,
    problems.METHOD_NOT_ALLOWED,
    problems.NOT_ACCEPTABLE,
    problems.NOT_IMPLEMENTED,
    problems.KEY_REUSED,
}

_TIMEOUT = parameter(
    "X-Request-Timeout",
    "Seconds after which the result is of no use any more.",
    pattern="^([1-9][0-9]{0,5}([.][0-9]{1,3})?|0[.][1-9][0-9]{0,2})$",
)

_MESSAGE = {"role": "user", "content": "春雨"}


def openai_paths() -> dict[str, Any]:
    """Below `/v1`."""
    return {
        "/v1/models": {"get": _models()},
        "/v1/models/{model}": {
            "parameters": [{**parameter("model", "Its name.", location="path"), "required": True}],
            "get": _model(),
        },
        "/v1/chat/completions": {
            "post": _operation(
                "chatCompletion",
                "OpenAI's chat completions",
                "ChatRequest",
                {"model": "poet", "messages": [_MESSAGE]},
                _document("chat.completion", "chatcmpl-961886f8", ["choices", "usage"]),
            )
        },
        "/v1/completions": {
            "post": _operation(
                "completion",
                "OpenAI's plain completions: prompts go to the model without a chat template",
                "CompletionRequest",
                {"model": "poet", "prompt": "春雨"},
                _document("text_completion", "cmpl-961886f8", ["choices", "usage"]),
            )
        },
        "/v1/images/generations": {
            "post": _operation(
                "generateImages",
                "OpenAI's pictures",
                "ImagesRequest",
                {"model": "painter", "prompt": "画一只猫"},
                _pictures(),
            )
        },
        "/v1/images/edits": {
            "post": _operation(
                "editImages",
                "OpenAI's pictures from a picture; its clients send a form (multipart/form-data) of the same fields",
                "EditRequest",
                {"model": "painter", "prompt": "画一只猫", "image": "iVBORw0KGgo="},
                _pictures(),
            )
        },
    }


def openai_problem() -> dict[str, Any]:
    """The schema of an error below `/v1`."""
    member = {"type": "string"}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": member, "type": member, "param": {"type": ["string", "null"]}, "code": member},
    }
    members = dict.fromkeys(("type", "title", "detail"), member) | {"status": {"type": "integer"}, "error": error}
    return {
        "type": "object",
        "description": "A Problem, and OpenAI's error beside its members.",
        "required": list(members),
        "properties": members,
    }


def _operation(
    name: str, summary: str, request: str, example: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    event = {
        "type": "object",
        "description": "One of the events. Comments between them say what the generation waits for.",
        "required": ["data"],
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    }
    return {
        "operationId": name,
        "tags": ["openai"],
        "summary": summary,
        "parameters": [_TIMEOUT],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": ref(request), "examples": {"least": {"value": example}}}},
        },
        "responses": {
            "200": {
                "description": f'The whole document, or with `"stream": true` its pieces as {SSE}.',
                "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *RATE_LIMIT)},
                "content": {JSON: {"schema": answer}, SSE: {"schema": event}},
            },
            **openai_refusals(set(problems.PROBLEM_TYPES) - _NOT_OF_GENERATIONS),
        },
    }


def openai_refusals(kinds: set[problems.ProblemType]) -> dict[str, Any]:
    """As elsewhere, in OpenAI's shape."""
    answers = refusals(kinds)
    for answer in answers.values():
        answer["content"] = {problems.MEDIA_TYPE: {"schema": ref("OpenAIProblem")}}
    return answers


def _document(kind: str, id: str, members: list[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "id": {"type": "string", "examples": [id]},
        "object": {"const": kind},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    }
    return {"type": "object", "required": ["id", "object", "created", "model", *members], "properties": properties}


def _pictures() -> dict[str, Any]:
    picture = {
        "type": "object",
        "properties": {
            "b64_json": {"type": "string"},
            "url": {"type": "string"},
            "seed": {"type": ["integer", "null"]},
        },
    }
    properties = {"created": {"type": "integer"}, "data": {"type": "array", "items": picture}}
    return {"type": "object", "required": list(properties), "properties": properties}


_CARD = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "kind"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "kind": {"enum": ["text", "image"]},
    },
}


def _models() -> dict[str, Any]:
    listed = {"object": {"const": "list"}, "data": {"type": "array", "items": _CARD}}
    answer = {"type": "object", "required": list(listed), "properties": listed}
    return _reading("models", "What is served, awake or not", answer, {problems.UNAUTHORIZED})


def _model() -> dict[str, Any]:
    refused = {problems.UNAUTHORIZED, problems.UNKNOWN_MODEL, problems.NOT_FOUND}
    return _reading("model", "One of the models", _CARD, refused)


def _reading(name: str, summary: str, answer: dict[str, Any], refused: set[problems.ProblemType]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["openai"],
        "summary": summary,
        "responses": {
            "200": {"description": summary + ".", "content": {JSON: {"schema": answer}}},
            **openai_refusals(refused | {problems.UNAVAILABLE}),
        },
    }
