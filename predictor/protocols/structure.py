"""What shape a request wants its text to have."""

from __future__ import annotations

from contract.request import Writing
from contract.texts.structure import JsonObjectFormat, JsonSchemaFormat
from predictor.engine.tasks import Choice, JsonSchema, Regex, Structure


def structure_of(request: Writing) -> Structure | None:
    """None where it may be any text. The contract lets through one structure at most."""
    match request.response_format:
        case JsonObjectFormat():
            return Structure(JsonSchema({"type": "object"}), "response_format")
        case JsonSchemaFormat(json_schema=named):
            return Structure(JsonSchema(named.json_schema), "response_format.json_schema.schema")
    if request.guided_regex is not None:
        return Structure(Regex(request.guided_regex), "guided_regex")
    if request.guided_choice is not None:
        return Structure(Choice(tuple(request.guided_choice)), "guided_choice")
    return None
