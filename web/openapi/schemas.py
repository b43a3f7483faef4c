"""The schemas of the OpenAPI description: the contract's own models, and what OpenAPI itself has no words for."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from contract import (
    GenerationRequest,
    Job,
    JobList,
    LinkedPicture,
    ModelChoice,
    ModelStatus,
    PictureResult,
    PreviewEvent,
    Problem,
    ProgressEvent,
    ReasoningEvent,
    RequestLimits,
    Statuses,
    StatusEvent,
    TextResult,
    TokenEvent,
)
from contract.cloudevents import ATTRIBUTE_CHARS, EVENT_TYPES, FAMILY
from contract.models.description import DescribedModels
from contract.openai.chat import ChatRequest
from contract.openai.completions import CompletionRequest
from contract.openai.pictures import EditRequest, ImagesRequest
from web.http.accept import JSON

_REQUESTS = (GenerationRequest, ModelChoice, ChatRequest, CompletionRequest, ImagesRequest, EditRequest)
_ANSWERS = (Problem, Job, JobList, LinkedPicture, ModelStatus, Statuses, DescribedModels)
_STREAM = (StatusEvent, ReasoningEvent, TokenEvent, ProgressEvent, PreviewEvent)


_EVENT_ID = {"type": "string", "description": "Of a job's stream: what Last-Event-ID goes on after."}


def ref(model: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model}"}


def event_stream(description: str) -> dict[str, Any]:
    """The content of an answer of server-sent events. Before version 3.2 OpenAPI has no words for a stream: the schema
    is that of one event, as generators of clients have it."""
    parsed = {"anyOf": [ref(model) for model in _event_data().values()]}
    members = {
        "event": {"enum": list(_event_data())},
        "id": _EVENT_ID,
        "data": {"type": "string", "contentMediaType": JSON, "contentSchema": parsed},
    }
    return {
        "schema": {
            "type": "object",
            "description": f"One of the events. {description}",
            "required": ["event", "data"],
            "properties": members,
        }
    }


def _event_data() -> dict[str, str]:
    """The model of each event's data."""
    return {event.event: event.__name__ for event in _STREAM} | {"result": "Result", "error": "Problem"}


FILE = {"type": "string", "format": "binary"}
"""Of a body that is no text. JSON Schema has no words for it; this is what generators of clients know."""


def schemas(limits: RequestLimits) -> dict[str, Any]:
    """All of the document, by name; with the limits that are not in the types of the fields."""
    request = copy.deepcopy(_schemas()["GenerationRequest"])
    fields = request["properties"]
    fields["prompt"]["maxLength"] = limits.prompt_chars
    fields["negative_prompt"]["anyOf"][0]["maxLength"] = limits.prompt_chars
    fields["max_tokens"]["anyOf"][0]["maximum"] = limits.max_tokens
    request["dependentRequired"] = {"mask": ["image"], "strength": ["image"]}
    return _schemas() | {"GenerationRequest": request}


@cache  # takes 0.1 s, and is the same for all applications of a process
def _schemas() -> dict[str, Any]:
    inputs: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in _REQUESTS]
    answers: list[type[BaseModel]] = [*_ANSWERS, *_STREAM, *(model for event in EVENT_TYPES for model in event.data)]
    outputs: list[tuple[type[BaseModel], Literal["serialization"]]] = [
        (model, "serialization") for model in dict.fromkeys(answers) if model not in _REQUESTS
    ]
    _, document = models_json_schema([*inputs, *outputs], ref_template="#/components/schemas/{model}")
    models: dict[str, Any] = document["$defs"]
    # Which of them is asked for in the query; what is stored, and the contract's own model, has files.
    models["PictureResult"]["properties"]["images"]["items"] = {"anyOf": [ref("Picture"), ref("LinkedPicture")]}
    asked = {model.__name__ for model in _REQUESTS}
    return (
        {name: _without_defaults(schema if name in asked else _answered(schema)) for name, schema in models.items()}
        | {"Result": _one_of("kind", {"text": TextResult, "image": PictureResult})}
        | {"ServerSentEvent": {"oneOf": _server_sent()}}
        | _cloud_events()
    )


def _answered(schema: dict[str, Any]) -> dict[str, Any]:
    """Later versions may answer more members. What has one value only is always there."""
    constant = [name for name, member in schema.get("properties", {}).items() if "const" in member]
    required = [*schema.get("required", ()), *(name for name in constant if name not in schema.get("required", ()))]
    opened = {key: value for key, value in schema.items() if key != "additionalProperties"}
    return opened | {"required": required} if required else opened


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Descriptions tell what holds for a member that is left out. Generators take one with a default for one that is
    always there."""
    members = {
        name: {key: value for key, value in member.items() if key != "default"}
        for name, member in schema.get("properties", {}).items()
    }
    return schema | {"properties": members} if members else schema


def _one_of(member: str, models: dict[str, type[BaseModel]]) -> dict[str, Any]:
    """One of the models, told apart by the value of a member."""
    mapping = {value: ref(model.__name__)["$ref"] for value, model in models.items()}
    return {
        "oneOf": [ref(model.__name__) for model in models.values()],
        "discriminator": {"propertyName": member, "mapping": mapping},
    }


def _server_sent() -> list[dict[str, Any]]:
    return [
        {
            "type": "object",
            "description": "A server-sent event with its data parsed.",
            "required": ["event", "data"],
            "properties": {"event": {"const": event}, "id": _EVENT_ID, "data": ref(model)},
        }
        for event, model in _event_data().items()
    ]


IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags of what the client has already.",
    "schema": {"type": "string"},
}
NOT_MODIFIED = {"304": {"description": "The client has it already: If-None-Match names its ETag."}}


def _cloud_events() -> dict[str, Any]:
    """`GenerationEvent`: a CloudEvent of any of our types, in its structured form; and one schema for each type."""
    attribute = {"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_CHARS}
    common = {
        "specversion": {"const": "1.0"},
        "id": attribute,
        "source": attribute,
        "subject": {**attribute, "description": "The id of the job."},
        "time": {**attribute, "format": "date-time"},
        "datacontenttype": {**attribute, "description": f"{JSON} where `data` is given."},
        "dataref": {**attribute, "description": "Where the data lies, if it is too large for the event."},
    }
    schemas: dict[str, Any] = {}
    mapping: dict[str, str] = {}
    for event in EVENT_TYPES:
        name = f"Generation{event.name.removeprefix(FAMILY).partition('.')[0].capitalize()}Event"
        data = [ref(model.__name__) for model in event.data]
        schemas[name] = {
            "type": "object",
            "description": event.meaning,
            "required": ["specversion", "id", "source", "type"],
            "properties": common | {"type": {"const": event.name}, "data": ref("Result") if len(data) > 1 else data[0]},
        }
        mapping[event.name] = ref(name)["$ref"]
    union = {
        "description": "A CloudEvent about a generation, in its structured form; docs/events.md tells of each.",
        "oneOf": [ref(name) for name in schemas],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return schemas | {"GenerationEvent": union}
