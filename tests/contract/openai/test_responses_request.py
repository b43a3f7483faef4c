"""Bodies of `POST /v1/responses`: what they become, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contract import GenerationRequest, ProblemError, RequestLimits, invalid_fields
from contract.openai.responses.items import Item, ItemReference
from contract.openai.responses.kept import KeptResponse
from contract.openai.responses.request import ResponsesRequest

LIMITS = RequestLimits(prompt_chars=100, max_tokens=50)

FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


def body(**fields: Any) -> ResponsesRequest:
    document = json.dumps({"model": "poet", "input": "moon", **fields})
    return ResponsesRequest.model_validate_json(document, context=LIMITS)


def generation(**fields: Any) -> dict[str, Any]:
    asked = body(**fields)
    items: list[Item] = [item for item in asked.input if not isinstance(item, ItemReference)]
    request: GenerationRequest = asked.generation(items, LIMITS)
    dumped = request.model_dump(mode="json", exclude_none=True)
    for message in dumped["messages"]:
        if (content := message.pop("content", None)) is not None:
            message["content"] = "|".join(part["text"] for part in content)
    return dumped


def refused(**fields: Any) -> str:
    try:
        generation(**fields)
    except ValidationError as error:
        return str(invalid_fields(error, ResponsesRequest))
    except ProblemError as error:
        return str(error)
    raise AssertionError(fields)


def messages(**fields: Any) -> Any:
    return generation(**fields)["messages"]


def test_a_text_is_what_the_user_says() -> None:
    assert messages() == [{"role": "user", "content": "moon"}]
    assert messages(input="moon", instructions="Rhyme.") == [
        {"role": "system", "content": "Rhyme."},
        {"role": "user", "content": "moon"},
    ]


def test_instructions_stand_before_a_system_message_of_the_input() -> None:
    turns = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "moon"}]
    assert messages(input=turns, instructions="Rhyme.")[0] == {"role": "system", "content": "Rhyme.\n\nBe short."}


def test_an_answer_and_its_calls_are_one_turn() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Let me look.", "annotations": [], "logprobs": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        {"type": "function_call", "call_id": "c3", "name": "weather", "arguments": "{}"},
    ]

    def call(id: str, arguments: str = "{}") -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}

    assert messages(input=items) == [
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "reasoning_content": "hm",
            "content": "Let me look.",
            "tool_calls": [call("c1"), call("c2", '{"a":1}')],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "sun"},
        {"role": "assistant", "tool_calls": [call("c3")]},
    ]


def test_how_to_write() -> None:
    asked = generation(
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=4,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
        reasoning={"effort": "low", "summary": "auto"},
        parallel_tool_calls=False,
        tools=[FUNCTION],
        tool_choice={"type": "function", "name": "weather"},
    )
    del asked["messages"]
    function = {"name": "weather", "parameters": {"type": "object"}, "strict": True}
    assert asked == {
        "model": "poet",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 4,
        "top_logprobs": 2,
        "reasoning_effort": "low",
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "stream": False,
    }


def test_logprobs_of_the_chosen_tokens_alone() -> None:
    assert generation(include=["message.output_text.logprobs"])["top_logprobs"] == 0


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "poem", "schema": {"type": "object"}, "strict": True},
            {"type": "json_schema", "json_schema": {"name": "poem", "schema": {"type": "object"}, "strict": True}},
        ),
    ],
)
def test_the_format_of_the_text(shape: dict[str, Any], expected: dict[str, Any]) -> None:
    assert generation(text={"format": shape, "verbosity": "medium"})["response_format"] == expected


def test_habits_change_nothing() -> None:
    habits: dict[str, Any] = {
        "metadata": {"a": "b"},
        "store": True,
        "background": False,
        "stream_options": {"include_obfuscation": False},
        "truncation": "disabled",
        "service_tier": "auto",
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "max_tool_calls": 3,
        "conversation": None,
        "context_management": [],
        "tools": [],
        "tool_choice": "auto",
    }
    assert messages(**habits) == messages()


IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0: the type web_search is not offered here"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice: the type mcp is not offered here"),
        ({"input": [IMAGE]}, "parts of the type input_image are not read here"),
        ({"input": [{"type": "file_search_call", "id": "x"}]}, "items of the type file_search_call are not taken"),
        ({"input": []}, "input"),
        ({"input": [[], True, None, {}]}, "input.0: input should be an object"),
        ({"input": [{"type": ["message"]}]}, "items of the type ['message'] are not taken here"),
        ({"input": [{"role": "user", "content": [None, {"type": 1}]}]}, "input.0.content.0"),
        ({"tools": [None]}, "tools.0: input should be an object"),
        ({"conversation": "conv_1"}, "conversation: is not supported here"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt: is not supported here"),
        ({"include": ["reasoning.encrypted_content"]}, "include.0"),
        ({"truncation": "auto"}, "truncation: is not supported here"),
        ({"max_tokens": 5}, "max_tokens: is not supported here"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary: is not supported here"),
        ({"text": {"verbosity": "low"}}, "text.verbosity: is not supported here"),
        ({"moderation": {"model": "m"}}, "moderation: is not supported here"),
        ({"background": True, "store": False}, "background: needs store"),
        ({"max_output_tokens": 51}, "max_output_tokens: "),
        ({"input": "x" * 101}, "input: should have at most 100 characters together"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools: must have different names"),
        ({"tool_choice": "required"}, "tool_choice: needs tools"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"nonsense": 1}, "nonsense: unknown field"),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}]},
            "arguments: must be JSON",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_name(fields: dict[str, Any], expected: str) -> None:
    assert expected in refused(**fields)


def test_what_is_kept_is_read_again() -> None:
    items = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": ""},
        {"type": "reasoning", "summary": []},
    ]
    asked = body(input=items, metadata={"a": "b"}, tools=[FUNCTION], text={"format": {"type": "json_object"}})
    kept = KeptResponse.of(asked, [item for item in asked.input if not isinstance(item, ItemReference)])
    assert KeptResponse.of_any_version(kept.model_dump_json(exclude_none=True)) == kept
    assert kept.asked["metadata"] == {"a": "b"}
    assert (kept.asked["instructions"], kept.asked["tool_choice"], kept.is_stored) == (None, "auto", True)
