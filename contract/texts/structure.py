"""What shape a text is to have."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from contract.fields import StrictModel
from contract.limits import CHOICE_CHARS, CHOICES, REGEX_CHARS, SCHEMA_BYTES


def _bounded(schema: dict[str, Any] | bool) -> dict[str, Any] | bool:
    if len(json.dumps(schema)) > SCHEMA_BYTES:
        raise ValueError(f"may have at most {SCHEMA_BYTES} bytes")
    return schema


class NamedSchema(StrictModel):
    """A JSON Schema. Texts are held to it whether it is `strict` or not."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    json_schema: Annotated[dict[str, Any], AfterValidator(_bounded)] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(StrictModel):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    """The JSON of an object."""

    type: Literal["json_object"]


class JsonSchemaFormat(StrictModel):
    """JSON that its schema allows."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
GuidedRegex = Annotated[str, Field(min_length=1, max_length=REGEX_CHARS)]
GuidedChoice = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=CHOICE_CHARS)]], Field(min_length=1, max_length=CHOICES)
]
