"""Reasoning over OpenAI's routes and KServe's: asked for, and told apart from the answer."""

from __future__ import annotations

import inspect
import json
from typing import Any

import httpx2
import openai
import pytest
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from contract.limits import TEMPLATE_BYTES
from contract.request import OWN_TEMPLATE_KWARGS
from predictor.engine.events import Reasoning

CHAT = "/openai/v1/chat/completions"
PREDICT = "/v1/models/poet:predict"
BODY: dict[str, Any] = {"model": "poet", "messages": [{"role": "user", "content": "moon"}]}


async def test_an_answer_has_the_reasoning_beside_the_content(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(Reasoning("hm, "), Reasoning("so"), "moon")

    [choice] = (await client.post(CHAT, json=BODY)).json()["choices"]

    assert choice["message"] == {
        "role": "assistant",
        "content": "moon",
        "refusal": None,
        "reasoning_content": "hm, so",
    }


async def test_without_reasoning_there_is_no_such_member(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("moon")

    assert "reasoning" not in (await client.post(CHAT, json=BODY)).text


async def test_a_stream_has_the_reasoning_in_deltas_of_its_own(server: Any, engine: Any) -> None:
    engine.enqueue(Reasoning("hm, "), Reasoning("so"), "moon")
    async with openai.AsyncOpenAI(base_url=f"{server.url}/openai/v1", api_key="none", max_retries=0) as client:
        create: Any = client.chat.completions.create
        deltas = [chunk.choices[0].delta async for chunk in await create(**BODY, stream=True)]

    told = [(getattr(delta, "reasoning_content", None), delta.content) for delta in deltas]
    assert told == [(None, ""), ("hm, ", None), ("so", None), (None, "moon"), (None, None)]


async def test_what_is_cut_before_its_answer_has_no_content(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(Reasoning("hm"), finish_reason="length")

    [choice] = (await client.post(CHAT, json=BODY)).json()["choices"]

    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("", "hm")
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "thinking", "template"),
    [
        ({}, None, {}),
        ({"chat_template_kwargs": None}, None, {}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True, {"enable_thinking": True}),
        ({"chat_template_kwargs": {"thinking": False}}, False, {"thinking": False}),
        ({"chat_template_kwargs": {"date": "today", "n": [1]}}, None, {"date": "today", "n": [1]}),
        ({"reasoning_effort": "none"}, False, {"reasoning_effort": "none"}),
        ({"reasoning_effort": "minimal"}, False, {"reasoning_effort": "minimal"}),
        ({"reasoning_effort": "low"}, True, {"reasoning_effort": "low"}),
        ({"reasoning_effort": None}, None, {}),
        (
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            False,
            {"reasoning_effort": "high", "enable_thinking": False},
        ),
    ],
)
async def test_the_template_gets_its_variables(
    client: httpx2.AsyncClient, engine: Any, fields: dict[str, Any], thinking: bool | None, template: dict[str, Any]
) -> None:
    engine.enqueue("x")

    assert (await client.post(CHAT, json=BODY | fields)).status_code == 200

    [task] = engine.tasks
    assert (task.thinking, task.template) == (thinking, template)


def test_every_argument_of_transformers_is_its_own() -> None:
    functions: list[Any] = [PreTrainedTokenizerBase.apply_chat_template, render_jinja_template]
    names = {name for each in functions for name in inspect.signature(each).parameters}

    assert names - {"kwargs"} <= OWN_TEMPLATE_KWARGS


@pytest.mark.parametrize(
    "kwargs",
    [
        *({name: True} for name in ("tokenize", "add_generation_prompt", "tools", "messages", "chat_template")),
        {"x": "y" * TEMPLATE_BYTES},
        [],
        "x",
    ],
    ids=lambda kwargs: json.dumps(kwargs)[:24],
)
async def test_what_is_no_variable_of_a_template_is_refused(client: httpx2.AsyncClient, kwargs: object) -> None:
    answer = await client.post(CHAT, json=BODY | {"chat_template_kwargs": kwargs})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "chat_template_kwargs"


async def test_reasoning_can_be_sent_back(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    turns = [{"role": "assistant", "content": "moon", name: "hm"} for name in ("reasoning_content", "reasoning")]

    await client.post(CHAT, json=BODY | {"messages": [*BODY["messages"], *turns, *BODY["messages"]]})

    assert [turn.get("reasoning_content") for turn in engine.tasks[0].prompt] == [None, "hm", "hm", None]


# KServe's


async def test_a_v1_prediction_has_the_reasoning_beside_the_text(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(Reasoning("hm"), "moon")

    answer = await client.post(PREDICT, json={"instances": [{"prompt": "moon", "thinking": True}]})

    [prediction] = answer.json()["predictions"]
    assert (prediction["text"], prediction["reasoning_content"]) == ("moon", "hm")
    assert engine.tasks[0].thinking is True


async def test_a_v2_answer_has_the_text_alone(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(Reasoning("hm"), "moon")
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["moon"]}

    answer = await client.post("/v2/models/poet/infer", json={"inputs": [tensor], "parameters": {"thinking": True}})

    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs["text"] == ["moon"]
    assert "hm" not in answer.text
    assert engine.tasks[0].thinking is True
