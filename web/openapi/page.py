"""The part of the OpenAPI description about `/`: the page, its form, and what programs get there."""

from __future__ import annotations

from typing import Any

from contract import problems
from web.http.accept import JSON
from web.openapi.problems import refusals
from web.openapi.schemas import IF_NONE_MATCH, NOT_MODIFIED

_HTML = {"text/html": {"schema": {"type": "string"}}}
_STATUSES = sorted({kind.status for kind in problems.PROBLEM_TYPES})


def page_path() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "discovery",
            "security": [],
            "tags": ["service"],
            "summary": "What is served here",
            "description": "Browsers get a page to ask on, programs a document.",
            "parameters": [IF_NONE_MATCH],
            "responses": {
                "200": {
                    "description": "What is served here.",
                    "content": {JSON: {"schema": {"type": "object"}}, **_HTML},
                },
                **NOT_MODIFIED,
            },
        },
        "post": {
            "operationId": "form",
            "tags": ["service"],
            "summary": "The page's form, for browsers that run no scripts",
            "description": "Taken from the page itself only. Programs use POST /generate.",
            "requestBody": {
                "required": True,
                "content": {
                    "application/x-www-form-urlencoded": {
                        "schema": {
                            "type": "object",
                            "properties": {"prompt": {"type": "string"}, "model": {"type": "string"}},
                            "additionalProperties": {"type": "string"},
                        }
                    }
                },
            },
            "responses": {
                "200": {"description": "The page with the result in it.", "content": _HTML},
                **{
                    str(status): {"description": "The page with the problem in it.", "content": _HTML}
                    for status in _STATUSES
                },
                **refusals({problems.UNAUTHORIZED}),
            },
        },
    }
