"""Tools over OpenAI's route and KServe's: what the engine is offered, and the calls that come back."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from predictor.engine.events import Reasoning, ToolCallPiece

CHAT = "/openai/v1/chat/completions"
PREDICT = "/v1/models/poet:predict"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
RAIN = {"type": "function", "function": {"name": "rain", "parameters": PARAMETERS, "strict": True}}
PING = {"type": "function", "function": {"name": "ping", "description": "Says pong."}}
NAMED = {"type": "function", "function": {"name": "ping"}}
BODY: dict[str, Any] = {"model": "poet", "messages": [{"role": "user", "content": "moon"}], "tools": [RAIN, PING]}
PIECES = (
    ToolCallPiece(0, '{"city"', "call_1", "rain"),
    ToolCallPiece(0, ': "杭州"}'),
    ToolCallPiece(1, "{}", "call_2", "ping"),
)
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "rain", "arguments": '{"city": "杭州"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "ping", "arguments": "{}"}},
]


async def test_an_answer_has_its_calls_and_no_content(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(*PIECES, finish_reason="tool_calls")

    [choice] = (await client.post(CHAT, json=BODY)).json()["choices"]

    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": CALLS}
    assert choice["finish_reason"] == "tool_calls"


async def test_words_and_reasoning_stand_beside_calls(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(Reasoning("hm"), "Let me see.", *PIECES, finish_reason="tool_calls")

    [choice] = (await client.post(CHAT, json=BODY)).json()["choices"]

    message = choice["message"]
    assert (message["content"], message["reasoning_content"], message["tool_calls"]) == ("Let me see.", "hm", CALLS)


async def test_a_stream_has_pieces_of_calls(server: Any, engine: Any) -> None:
    engine.enqueue("Hm.", *PIECES, finish_reason="tool_calls")
    async with openai.AsyncOpenAI(base_url=f"{server.url}/openai/v1", api_key="none", max_retries=0) as client:
        create: Any = client.chat.completions.create
        choices = [chunk.choices[0] async for chunk in await create(**BODY, stream=True)]

    deltas = [choice.delta.tool_calls[0].model_dump(exclude_none=True) for choice in choices if choice.delta.tool_calls]
    assert deltas == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "rain", "arguments": '{"city"'}},
        {"index": 0, "function": {"arguments": ': "杭州"}'}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "ping", "arguments": "{}"}},
    ]
    assert choices[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("fields", "names", "required", "several"),
    [
        ({}, ["rain", "ping"], False, True),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, ["rain", "ping"], False, True),
        ({"tool_choice": "required"}, ["rain", "ping"], True, True),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["rain", "ping"], True, False),
        ({"tool_choice": NAMED}, ["ping"], True, False),
    ],
)
async def test_the_engine_is_offered_what_may_be_called(
    client: httpx2.AsyncClient, engine: Any, fields: dict[str, Any], names: list[str], required: bool, several: bool
) -> None:
    engine.enqueue("x")

    assert (await client.post(CHAT, json=BODY | fields)).status_code == 200

    offered = engine.tasks[0].tools
    assert [function.name for function in offered.callable] == names
    assert (offered.required, offered.several) == (required, several)
    assert [tool["function"] for tool in offered.described] == [
        {"name": "rain", "description": "", "parameters": PARAMETERS},
        {"name": "ping", "description": "Says pong.", "parameters": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
async def test_nothing_is_offered_where_nothing_may_be_called(
    client: httpx2.AsyncClient, engine: Any, fields: dict[str, Any]
) -> None:
    engine.enqueue("x")

    assert (await client.post(CHAT, json=BODY | fields)).status_code == 200
    assert engine.tasks[0].tools is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "snow"}}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [RAIN, RAIN]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ],
)
async def test_what_cannot_be_called_is_refused_by_name(
    client: httpx2.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    answer = await client.post(CHAT, json=BODY | fields)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith(field)


# KServe's


async def test_a_v1_prediction_has_its_calls(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(*PIECES, finish_reason="tool_calls")
    instance = {"messages": BODY["messages"], "tools": BODY["tools"], "tool_choice": "required"}

    [prediction] = (await client.post(PREDICT, json={"instances": [instance]})).json()["predictions"]

    assert (prediction["text"], prediction["tool_calls"], prediction["finish_reason"]) == ("", CALLS, "tool_calls")
    assert engine.tasks[0].tools.required


async def test_v1_takes_a_conversation(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    turns = [
        {"role": "user", "content": "moon"},
        {"role": "assistant", "content": "?"},
        {"role": "user", "content": "!"},
    ]

    await client.post(PREDICT, json={"instances": [{"messages": turns, "system": "Be brief."}]})

    [task] = engine.tasks
    assert [(turn["role"], turn["content"]) for turn in task.prompt] == [
        ("system", "Be brief."),
        ("user", "moon"),
        ("assistant", "?"),
        ("user", "!"),
    ]
    assert task.field == "messages"


@pytest.mark.parametrize(
    ("instance", "field"),
    [
        ({}, "instances.0.prompt"),
        ({"prompt": "x", "messages": BODY["messages"]}, "instances.0.messages"),
        ({"messages": []}, "instances.0.messages"),
        ({"messages": [{"role": "poet", "content": "x"}]}, "instances.0.messages.0.role"),
    ],
)
async def test_v1_names_what_is_wrong_with_a_conversation(
    client: httpx2.AsyncClient, instance: dict[str, Any], field: str
) -> None:
    answer = await client.post(PREDICT, json={"instances": [instance]})

    assert answer.status_code == 400
    assert field in [error["field"] for error in answer.json()["errors"]]
