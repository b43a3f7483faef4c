"""The part of the OpenAPI description about `/v1/responses`. OpenAI's own reference says what its documents hold."""

from __future__ import annotations

from typing import Any

from contract import problems
from contract.limits import WEBHOOK_CHARS
from web.http.accept import JSON, SSE
from web.http.idempotency_key import KEY_CHARS
from web.http.page_query import DEFAULT_LIMIT, MOST_LIMIT
from web.openapi.jobs import parameter
from web.openapi.openai import openai_refusals
from web.openapi.schemas import ref

_NULLABLE = {
    "instructions": "string",
    "previous_response_id": "string",
    "background": "boolean",
    "store": "boolean",
    "stream": "boolean",
}

RESPONSE_SCHEMAS: dict[str, Any] = {
    "OpenAIResponsesRequest": {
        "type": "object",
        "description": "OpenAI's fields; docs/http.md says which are known here.",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string"},
            "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
            **{name: {"type": [kind, "null"]} for name, kind in _NULLABLE.items()},
            "webhook": {
                "type": ["string", "null"],
                "maxLength": WEBHOOK_CHARS,
                "description": "Not OpenAI's: where the end of a response in the background is posted to.",
            },
        },
    },
    "OpenAIResponse": {
        "type": "object",
        "required": ["id", "object", "status", "output"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "response"},
            "status": {"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
            "output": {"type": "array", "items": {"type": "object"}},
            "webhook": ref("Webhook"),
        },
    },
    "OpenAIResponseEvent": {
        "type": "object",
        "description": "One of the server-sent events; `data` is the JSON of one of OpenAI's.",
        "required": ["event", "data"],
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    },
    "OpenAIItemList": {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"type": "object"}},
            "has_more": {"type": "boolean"},
        },
    },
    "OpenAIDeletion": {
        "type": "object",
        "required": ["id", "object", "deleted"],
        "properties": {"id": {"type": "string"}, "object": {"const": "response"}, "deleted": {"const": True}},
    },
}

_X_REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_OF_ONE = {
    problems.INVALID_FIELD,
    problems.UNAUTHORIZED,
    problems.NOT_FOUND,
    problems.INTERNAL,
    problems.UNAVAILABLE,
}
_OF_A_NEW_ONE = set(problems.PROBLEM_TYPES) - {
    problems.MALFORMED_EVENT,
    problems.FORBIDDEN,
    problems.METHOD_NOT_ALLOWED,
    problems.NOT_ACCEPTABLE,
    problems.NOT_IMPLEMENTED,
}
_ID = {**parameter("id", "Of the response.", location="path"), "required": True}


def response_paths() -> dict[str, Any]:
    """The paths, with their operations."""
    shown = {**_json("OpenAIResponse"), **_events()}
    starting_after = {"schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}}
    limit = {"schema": {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT}}
    key = "Makes a response that is made once only; not with `store` false."
    return {
        "/v1/responses": {
            "post": {
                **_operation("createResponse", "Make a response", shown, _OF_A_NEW_ONE),
                "description": "As OpenAI's; it is a job of its caller. With `stream` as server-sent events, with "
                "`background` at once.",
                "parameters": [parameter("Idempotency-Key", key, maxLength=KEY_CHARS, pattern="^[!-~]*[!#-~][!-~]*$")],
                "requestBody": {"required": True, "content": _json("OpenAIResponsesRequest")},
            }
        },
        "/v1/responses/{id}": {
            "parameters": [_ID],
            "get": {
                **_operation("response", "A response as it is now, or its events", shown, _OF_ONE),
                "parameters": [
                    parameter("stream", "Whether its events are wanted.", location="query", enum=["true", "false"]),
                    parameter("starting_after", "Go on after the event of this number.", location="query")
                    | starting_after,
                ],
            },
            "delete": _operation("deleteResponse", "Forget a response", _json("OpenAIDeletion"), _OF_ONE),
        },
        "/v1/responses/{id}/cancel": {
            "parameters": [_ID],
            "post": _operation(
                "cancelResponse", "Cancel a response in the background", _json("OpenAIResponse"), _OF_ONE
            ),
        },
        "/v1/responses/{id}/input_items": {
            "parameters": [_ID],
            "get": {
                **_operation("responseInput", "What the model was given", _json("OpenAIItemList"), _OF_ONE),
                "parameters": [
                    parameter("limit", "Items of a page.", location="query") | limit,
                    parameter("order", "Newest or oldest first.", location="query", enum=["desc", "asc"]),
                    parameter("after", "Go on after the item of this id.", location="query"),
                ],
            },
        },
    }


def _operation(name: str, summary: str, content: dict[str, Any], refused: set[problems.ProblemType]) -> dict[str, Any]:
    answer = {"description": f"{summary}.", "headers": _X_REQUEST_ID, "content": content}
    responses = {"200": answer, **openai_refusals(refused)}
    return {"operationId": name, "tags": ["openai"], "summary": summary, "responses": responses}


def _json(schema: str) -> dict[str, Any]:
    return {JSON: {"schema": ref(schema)}}


def _events() -> dict[str, Any]:
    return {SSE: {"schema": ref("OpenAIResponseEvent")}}
