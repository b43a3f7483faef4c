"""The part of the OpenAPI description about CloudEvents."""

from __future__ import annotations

from typing import Any

from contract import problems
from web.openapi.problems import refusals
from web.openapi.schemas import ref
from wire.cloudevents import BATCHED, STRUCTURED


def events_operation() -> dict[str, Any]:
    event = ref("GenerationEvent")
    return {
        "operationId": "events",
        "tags": ["events"],
        "summary": "Deliver CloudEvents about jobs",
        "description": "For the Triggers of a Broker. Binary mode is taken, too. Events about jobs that are unknown or "
        "have ended are taken and change nothing.",
        "security": [{"sender": []}, {}],
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
