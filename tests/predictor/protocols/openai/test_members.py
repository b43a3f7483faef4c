"""What OpenAI's clients send, held against the types of the installed client: each member is either taken or refused by
its name, and its own answers can be sent back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_args, get_type_hints

import httpx2
import openai
import pytest
from openai.types import completion_create_params as completion_params
from openai.types import image_generate_params as image_params
from openai.types.chat import (
    ChatCompletionContentPartRefusalParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import completion_create_params as chat_params
from openai.types.chat.chat_completion_message import ChatCompletionMessage
from openai.types.chat.parsed_chat_completion import ParsedChatCompletionMessage
from openai.types.chat.parsed_function_tool_call import ParsedFunction

from contract.openai.fields import UsageOptions
from contract.texts.messages import ChatMessage, ContentPart, FunctionCall

CHAT = "/openai/v1/chat/completions"
COMPLETIONS = "/openai/v1/completions"
IMAGES = "/openai/v1/images/generations"

TEXT = [{"type": "text", "text": "moon"}]
USER = {"role": "user", "content": "moon"}
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "rain", "arguments": '{"city": "杭州"}'}}]

BOTH_TEXTS: dict[str, list[object]] = {
    "model": ["poet"],
    "frequency_penalty": [0, None],
    "logit_bias": [{}, None],
    "max_tokens": [5, None],
    "n": [1, None],
    "presence_penalty": [0, None],
    "seed": [1, None],
    "stop": ["x", ["x"], None],
    "stream": [False, None],
    "stream_options": [None, {"include_usage": True, "include_obfuscation": False}],
    "temperature": [1, None],
    "top_p": [1, None],
    "user": ["me"],
}

TAKEN: dict[str, dict[str, list[object]]] = {
    CHAT: BOTH_TEXTS
    | {
        "messages": [[USER]],
        "audio": [None],
        "function_call": ["none", "auto"],
        "functions": [[]],
        "logprobs": [False, None],
        "max_completion_tokens": [5, None],
        "metadata": [{"a": "b"}, None],
        "modalities": [["text"], None],
        "moderation": [None],
        "parallel_tool_calls": [True, False],
        "prediction": [None],
        "prompt_cache_key": ["k", None],
        "prompt_cache_options": [{"mode": "explicit"}],
        "prompt_cache_retention": ["24h", None],
        "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max", None],
        "response_format": [{"type": "text"}, None],
        "safety_identifier": ["me"],
        "service_tier": ["auto", "default", "flex", "priority", None],
        "store": [False, True, None],
        "tool_choice": ["none", "auto", None],
        "tools": [[], None],
        "top_logprobs": [0, None],
        "verbosity": ["medium", None],
        "web_search_options": [None],
    },
    COMPLETIONS: BOTH_TEXTS
    | {
        "prompt": ["moon", ["moon"]],
        "best_of": [1, None],
        "echo": [False, None],
        "logprobs": [None],
        "suffix": ["", None],
    },
    IMAGES: {
        "model": ["painter"],
        "prompt": ["moon"],
        "background": ["auto", "opaque", None],
        "complexity": [None],
        "frame_count": [None],
        "frame_duration_ms": [None],
        "moderation": ["auto", None],
        "n": [1, None],
        "output_compression": [None],
        "output_format": ["png", "jpeg", "webp", None],
        "partial_images": [0, None],
        "quality": ["auto", "standard", None],
        "response_format": ["b64_json", None],
        "safety_identifier": ["me"],
        "size": ["auto", None],
        "stream": [False, None],
        "style": [None],
        "svg": [None],
        "user": ["me"],
    },
}
"""Each member with values that change nothing, or that this server follows."""

REFUSED: dict[str, dict[str, list[object]]] = {
    CHAT: {
        "audio": [{"format": "wav", "voice": "ash"}],
        "frequency_penalty": [3],
        "function_call": [{"name": "rain"}],
        "functions": [[{"name": "rain"}]],
        "logit_bias": [{"5": 101}, {"five": 1}],
        "logprobs": ["yes"],
        "modalities": [["text", "audio"]],
        "moderation": [{"model": "m"}],
        "n": [0, 21],
        "prediction": [{"type": "content", "content": "x"}],
        "presence_penalty": [-3],
        "reasoning_effort": ["some"],
        "response_format": [{"type": "json_schema", "json_schema": {"name": "x"}}],
        "tool_choice": ["required", {"type": "function", "function": {"name": "rain"}}],
        "tools": [[{"type": "function", "function": {"name": "rain in June"}}]],
        "top_logprobs": [21],
        "verbosity": ["low"],
        "web_search_options": [{}],
    },
    COMPLETIONS: {"best_of": [2], "echo": [True], "logprobs": [21], "n": [0], "suffix": ["x"], "prompt": [[1, 2]]},
    IMAGES: {
        "background": ["transparent"],
        "complexity": ["low"],
        "frame_count": [2],
        "frame_duration_ms": [100],
        "moderation": ["low"],
        "output_compression": [50],
        "output_format": ["gif", "svg"],
        "quality": ["high", "hd"],
        "response_format": ["url"],
        "style": ["vivid"],
        "svg": [{}],
    },
}
"""Each member whose other values would change the answer, with some of them."""

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "poet", "messages": [USER]},
    COMPLETIONS: {"model": "poet", "prompt": "moon"},
    IMAGES: {"model": "painter", "prompt": "moon"},
}

PARAMS: dict[str, Any] = {
    CHAT: chat_params.CompletionCreateParams,
    COMPLETIONS: completion_params.CompletionCreateParams,
    IMAGES: image_params.ImageGenerateParams,
}


Answers = dict[tuple[str, str], httpx2.Response]


async def each_alone(
    client: httpx2.AsyncClient, path: str, table: dict[str, list[object]], engine: Any = None
) -> Answers:
    """The answer to each value of each member of the table, one member at a time."""
    answers = {}
    for member, values in table.items():
        for value in values:
            if engine is not None:
                engine.enqueue("x")
            body = BODIES[path] | {member: value}
            answers[member, repr(value)] = await client.post(path, json=body)
    return answers


def not_taken(answers: Answers) -> dict[tuple[str, str], str]:
    return {case: answer.text for case, answer in answers.items() if answer.status_code != 200}


def not_refused_by_name(answers: Answers, within: str = "") -> dict[tuple[str, str], str]:
    def named(answer: httpx2.Response, member: str) -> bool:
        fields = [error["field"] for error in answer.json().get("errors", ())]
        return answer.status_code == 400 and any(field.startswith(within + member) for field in fields)

    return {
        case: answer.text
        for case, answer in answers.items()
        if not named(answer, case[0]) or "unknown field" in answer.text
    }


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, IMAGES])
def test_no_member_of_the_installed_client_is_forgotten(path: str) -> None:
    sent = {member for params in get_args(PARAMS[path]) for member in params.__annotations__}

    assert sent == set(TAKEN[path])
    assert set(REFUSED[path]) < sent


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_what_changes_nothing_is_taken(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    assert not_taken(await each_alone(client, path, TAKEN[path], engine)) == {}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_what_would_change_the_answer_is_refused_by_name(client: httpx2.AsyncClient, path: str) -> None:
    assert not_refused_by_name(await each_alone(client, path, REFUSED[path])) == {}


@pytest.mark.slow
async def test_pictures_take_and_refuse_likewise(painter_client: httpx2.AsyncClient) -> None:
    assert not_taken(await each_alone(painter_client, IMAGES, TAKEN[IMAGES])) == {}
    assert not_refused_by_name(await each_alone(painter_client, IMAGES, REFUSED[IMAGES])) == {}


# Messages

TURNS: dict[str, dict[str, list[object]]] = {
    "developer": {"content": ["x", TEXT], "name": ["me"]},
    "system": {"content": ["x", TEXT], "name": ["me"]},
    "user": {"content": ["x", TEXT], "name": ["me"]},
    "assistant": {
        "content": ["x", TEXT, None, "", [{"type": "refusal", "refusal": "no"}]],
        "name": ["me"],
        "refusal": [None, "no"],
        "audio": [None],
        "function_call": [None],
        "tool_calls": [None, [], CALLS],
    },
    "tool": {"content": ["x", TEXT], "tool_call_id": ["call_1"]},
}
"""Each member of a turn of each role with values that are taken."""

REFUSED_TURNS: list[tuple[str, str, object]] = [
    ("system", "content", None),
    ("user", "content", None),
    ("user", "content", [{"type": "image_url", "image_url": {"url": "data:"}}]),
    ("user", "content", [{"type": "input_audio", "input_audio": {}}]),
    ("user", "content", [{"type": "text"}]),
    ("user", "tool_calls", CALLS),
    ("tool", "content", None),
    ("assistant", "audio", {"id": "audio_1"}),
    ("assistant", "function_call", {"name": "rain", "arguments": "{}"}),
    ("assistant", "tool_calls", [{"id": "call_1", "type": "custom", "custom": {"name": "x", "input": "y"}}]),
    ("assistant", "tool_calls", [{"id": "1", "type": "function", "function": {"name": "x", "arguments": "{"}}]),
    ("assistant", "tool_calls", [{"id": "1", "function": {"name": "x", "arguments": "[" * 100_000}}]),
    ("assistant", "tool_calls", CALLS * 129),
    ("function", "role", "function"),
]


def test_no_member_of_a_message_is_forgotten() -> None:
    sent = {}
    for params in get_args(ChatCompletionMessageParam):
        hints = get_type_hints(params)
        [role] = get_args(hints.pop("role"))
        sent[role] = set(hints)

    assert sent == {role: set(members) for role, members in TURNS.items()} | {"function": {"content", "name"}}


async def each_turn(client: httpx2.AsyncClient, role: str, member: str, value: object) -> Answers:
    """The answer to a conversation with one turn that has this member."""
    turn = {"role": role, "content": "x"} | {member: value}
    answer = await client.post(CHAT, json=BODIES[CHAT] | {"messages": [USER, turn, USER]})
    return {(member, repr(value)): answer}


@pytest.mark.parametrize("role", TURNS)
async def test_members_of_a_message_are_taken(client: httpx2.AsyncClient, engine: Any, role: str) -> None:
    for member, values in TURNS[role].items():
        for value in values:
            engine.enqueue("x")
            assert not_taken(await each_turn(client, role, member, value)) == {}


async def test_what_a_model_would_not_read_is_refused_by_name(client: httpx2.AsyncClient) -> None:
    for role, member, value in REFUSED_TURNS:
        assert not_refused_by_name(await each_turn(client, role, member, value), "messages.1.") == {}


async def test_an_assistant_may_have_said_nothing(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    silent = {"role": "assistant", "refusal": "I had rather not."}

    answer = await client.post(
        CHAT, json=BODIES[CHAT] | {"messages": [USER, {"role": "assistant"}, USER, silent, USER]}
    )

    assert answer.status_code == 200, answer.text
    _, nothing, _, refusal, _ = engine.tasks[0].prompt
    assert nothing == {"role": "assistant", "content": ""}
    assert refusal == {"role": "assistant", "content": "I had rather not."}


async def test_tool_turns_reach_the_engine_as_templates_read_them(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    called = {"role": "assistant", "content": None, "tool_calls": CALLS}
    answered = {"role": "tool", "tool_call_id": "call_1", "content": TEXT, "name": "rain"}

    answer = await client.post(CHAT, json=BODIES[CHAT] | {"messages": [USER, called, answered]})

    assert answer.status_code == 200, answer.text
    function = {"name": "rain", "arguments": {"city": "杭州"}}
    assert engine.tasks[0].prompt == (
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "id": "call_1", "function": function}],
        },
        {"role": "tool", "content": "moon", "tool_call_id": "call_1", "name": "rain"},
    )


# OpenAI's own client


@pytest.fixture
async def openai_client(server: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/openai/v1", api_key="none", max_retries=0) as client:
        yield client


OTHERS_ANSWER = ChatCompletionMessage.model_validate(
    {"role": "assistant", "content": "one", "refusal": None, "annotations": [], "audio": None, "function_call": None}
    | {"tool_calls": None, "reasoning_content": "hm", "reasoning": "hm"}
)
"""What OpenAI's servers and vLLM's answer with, all members set."""


@pytest.mark.parametrize("dumped", [False, True], ids=["as it is", "dumped"])
async def test_an_answer_can_be_sent_back(openai_client: openai.AsyncOpenAI, engine: Any, dumped: bool) -> None:
    create: Any = openai_client.chat.completions.create
    messages: list[Any] = [USER, OTHERS_ANSWER.model_dump() if dumped else OTHERS_ANSWER]
    for word in ("two", "three"):
        engine.enqueue(word)
        messages.append(USER)
        message = (await create(model="poet", messages=messages)).choices[0].message
        messages.append(message.model_dump() if dumped else message)
    engine.enqueue("four")
    messages.append(USER)

    stream = await create(model="poet", messages=messages, stream=True)

    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "four"
    assert [turn["content"] for turn in engine.tasks[-1].prompt] == [
        "moon",
        "one",
        "moon",
        "two",
        "moon",
        "three",
        "moon",
    ]


async def test_an_answer_of_the_clients_helpers_can_be_sent_back(
    openai_client: openai.AsyncOpenAI, engine: Any
) -> None:
    for word in ("one", "two", "three"):
        engine.enqueue(word)
    messages: list[Any] = [USER]
    async with openai_client.chat.completions.stream(model="poet", messages=messages) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message
    messages += [streamed, USER]
    parsed = (await openai_client.chat.completions.parse(model="poet", messages=messages)).choices[0].message
    messages += [parsed.model_dump(), USER]

    await openai_client.chat.completions.create(model="poet", messages=messages)

    assert [turn["content"] for turn in engine.tasks[-1].prompt] == ["moon", "one", "moon", "two", "moon"]


def test_no_member_of_an_answer_is_forgotten() -> None:
    assert set(ChatCompletionMessage.model_fields) <= OTHERS_ANSWER.model_fields_set
    assert set(ParsedChatCompletionMessage.model_fields) <= set(ChatMessage.model_fields)
    assert set(ParsedFunction.model_fields) <= set(FunctionCall.model_fields)


def test_parts_and_options_have_the_members_that_are_known() -> None:
    assert set(ChatCompletionStreamOptionsParam.__annotations__) <= set(UsageOptions.model_fields)
    for params in (ChatCompletionContentPartTextParam, ChatCompletionContentPartRefusalParam):
        assert set(params.__annotations__) <= set(ContentPart.model_fields)
