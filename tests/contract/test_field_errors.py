"""What a client is told of a body that is wrong: its own names of fields, and plain words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from contract import GenerationRequest
from contract.openai.chat import ChatRequest
from contract.openai.completions import CompletionRequest
from contract.openai.responses.request import ResponsesRequest
from contract.problems import invalid_fields

PROMPT = {"prompt": "x"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
PLAIN = {"model": "m", "prompt": "x"}
RESPONSE = {"model": "m", "input": "x"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
CHOICE = "must be one of none, auto, required, or an object with function"

Case = tuple[type[BaseModel], dict[str, Any], list[str]]
CASES: list[Case] = [
    (GenerationRequest, {**PROMPT, "stop": ["x"] * 5}, ["stop: list should have at most 4 items, not 5"]),
    (GenerationRequest, {**PROMPT, "stop": 1}, ["stop: must be a text or a list"]),
    (GenerationRequest, {"system": "x"}, ["prompt: is required, or messages in its place"]),
    (
        ChatRequest,
        {**CHAT, "messages": [{"role": "user", "content": 1}]},
        ["messages.0.content: must be a text or a list"],
    ),
    (ChatRequest, {**CHAT, "messages": [{"role": "user", "content": None}]}, ["messages.0.content: is required"]),
    (ResponsesRequest, {**RESPONSE, "input": None}, ["input: must be a text or a list"]),
    (
        ResponsesRequest,
        {**RESPONSE, "input": [{"role": "user", "content": 1}]},
        ["input.0.content: must be a text or a list"],
    ),
    (GenerationRequest, {**PROMPT, "stop": ""}, ["stop: string should have at least 1 character"]),
    (GenerationRequest, {**PROMPT, "stop": ["x", ""]}, ["stop.1: string should have at least 1 character"]),
    (GenerationRequest, {**PROMPT, "tool_choice": "yes"}, [f"tool_choice: {CHOICE}"]),
    (GenerationRequest, {**PROMPT, "tool_choice": 7}, [f"tool_choice: {CHOICE}"]),
    (GenerationRequest, {**PROMPT, "tool_choice": {}}, ["tool_choice.function: is required"]),
    (ChatRequest, {**CHAT, "tool_choice": {"function": {}}}, ["tool_choice.function.name: is required"]),
    (ChatRequest, {**CHAT, "messages": []}, ["messages: list should have at least 1 item, not 0"]),
    (
        ChatRequest,
        {**CHAT, "response_format": {"type": "x"}},
        ["response_format: type must be one of text, json_object, json_schema"],
    ),
    (ChatRequest, {**CHAT, "response_format": {}}, ["response_format: type is required"]),
    (ChatRequest, {**CHAT, "response_format": "json"}, ["response_format: input should be an object"]),
    (
        ChatRequest,
        {**CHAT, "response_format": {"type": "json_schema"}},
        ["response_format.json_schema: is required"],
    ),
    (
        ChatRequest,
        {**CHAT, "response_format": {**SCHEMA, "json_schema": {"name": "n", "schema": {}, "x": 1}}},
        ["response_format.json_schema.x: unknown field; allowed are name, description, schema, strict"],
    ),
    (CompletionRequest, {**PLAIN, "prompt": ""}, ["prompt: string should have at least 1 character"]),
    (CompletionRequest, {**PLAIN, "prompt": " "}, ["prompt: must contain more than white space"]),
    (CompletionRequest, {**PLAIN, "prompt": ["x", " "]}, ["prompt.1: must contain more than white space"]),
    (ResponsesRequest, {**RESPONSE, "input": [{"role": "user"}]}, ["input.0.content: is required"]),
    (ResponsesRequest, {**RESPONSE, "input": [7]}, ["input.0: input should be an object"]),
    (
        ResponsesRequest,
        {**RESPONSE, "input": [{"type": "function_call_output", "call_id": "c", "output": "x", "y": 1}]},
        [
            "input.0.y: unknown field; allowed are type, call_id, output, id, status, name, namespace, caller",
        ],
    ),
    (
        ResponsesRequest,
        {**RESPONSE, "tool_choice": "yes"},
        ["tool_choice: must be one of none, auto, required, or an object with type and name"],
    ),
    (
        ResponsesRequest,
        {**RESPONSE, "text": {"format": {"type": "json_schema", "name": "n"}}},
        ["text.format.schema: is required"],
    ),
    (
        ResponsesRequest,
        {**RESPONSE, "metadata": {"k" * 65: "v"}},
        [f"metadata.{'k' * 64}: its name: string should have at most 64 characters"],
    ),
    (
        ResponsesRequest,
        {**RESPONSE, "metadata": {str(number): "" for number in range(17)}},
        ["metadata: object should have at most 16 items, not more"],
    ),
]


def read(body: type[BaseModel], fields: dict[str, Any], *, as_json: bool) -> None:
    """As web reads a body, or as the predictor reads one that KServe has parsed."""
    if as_json:
        body.model_validate_json(json.dumps(fields))
    else:
        body.model_validate(fields)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(("body", "fields", "told"), CASES, ids=[str(place) for place in range(len(CASES))])
def test_what_a_client_is_told(
    body: type[BaseModel], fields: dict[str, Any], told: list[str], *, as_json: bool
) -> None:
    with pytest.raises(ValidationError) as caught:
        read(body, fields, as_json=as_json)
    errors = invalid_fields(caught.value, body).problem.errors or []
    assert [f"{error.field}: {error.detail}" for error in errors] == told
