"""Structures of texts, in every protocol."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from contract import problems
from contract.problems import invalid_field
from predictor.engine.tasks import Choice, JsonSchema, Regex, Structure

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
FIELDS: list[tuple[dict[str, Any], Structure]] = [
    ({"response_format": FORMAT}, Structure(JsonSchema(SCHEMA), "response_format.json_schema.schema")),
    ({"response_format": {"type": "json_object"}}, Structure(JsonSchema({"type": "object"}), "response_format")),
    ({"guided_regex": "a+"}, Structure(Regex("a+"), "guided_regex")),
    ({"guided_choice": ["yes", "no"]}, Structure(Choice(("yes", "no")), "guided_choice")),
]


@pytest.mark.parametrize(("fields", "structure"), FIELDS)
async def test_chat_completions_and_instances_have_one(
    client: httpx2.AsyncClient, engine: Any, fields: dict[str, Any], structure: Structure
) -> None:
    engine.enqueue("x")
    engine.enqueue("x")
    messages = [{"role": "user", "content": "moon"}]

    chat = await client.post("/openai/v1/chat/completions", json={"model": "poet", "messages": messages, **fields})
    instance = await client.post("/v1/models/poet:predict", json={"instances": [{"prompt": "moon", **fields}]})

    assert (chat.status_code, instance.status_code) == (200, 200), chat.text + instance.text
    assert [task.structure for task in engine.tasks] == [structure, structure]


async def test_one_that_is_not_supported_is_refused_by_its_field(client: httpx2.AsyncClient, engine: Any) -> None:
    detail = "has a keyword that is not supported: not"
    for _ in range(2):
        engine.refuse(invalid_field("response_format.json_schema.schema", detail))
    body = {"messages": [{"role": "user", "content": "moon"}], "response_format": FORMAT}

    chat = await client.post("/openai/v1/chat/completions", json={"model": "poet", **body})
    instance = await client.post(
        "/v1/models/poet:predict", json={"instances": [{"prompt": "m", "response_format": FORMAT}]}
    )

    assert chat.status_code == instance.status_code == 400
    assert chat.json()["error"]["param"] == "response_format.json_schema.schema"
    assert chat.json()["type"] == problems.INVALID_FIELD.uri
    [error] = instance.json()["errors"]
    assert error == {"field": "instances.0.response_format.json_schema.schema", "detail": detail}
