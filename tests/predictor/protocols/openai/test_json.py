"""The OpenAI routes, answered in one piece."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from contract import problems
from contract.problems import ProblemError, invalid_field
from contract.texts.sampling import Sampling
from predictor.engine.tasks import TextTask

CHAT = "/openai/v1/chat/completions"
COMPLETIONS = "/openai/v1/completions"


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "poet", "messages": [{"role": "user", "content": "moon"}]} | fields


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": "poet", "prompt": "moon"} | fields


async def test_the_served_model_is_listed(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/openai/v1/models")).json()

    assert listed["object"] == "list"
    [card] = listed["data"]
    assert (card["id"], card["object"]) == ("poet", "model")
    assert (await client.get("/openai/v1/models/poet")).json() == card


async def test_a_chat_completion_holds_the_text_the_reason_and_the_usage(
    client: httpx2.AsyncClient, engine: Any
) -> None:
    engine.enqueue("床前", "明月光", prompt_tokens=3, completion_tokens=6)

    answer = await client.post(CHAT, json=chat())

    assert answer.status_code == 200
    document = answer.json()
    assert document.pop("id").startswith("chatcmpl-")
    assert document.pop("created") > 0
    assert document == {
        "object": "chat.completion",
        "model": "poet",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "床前明月光", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9},
        "timing": {"queue_s": 0.25},
    }


async def test_a_completion_holds_the_text_the_reason_and_the_usage(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("light", " on the bed", finish_reason="length", prompt_tokens=1, completion_tokens=4)

    document = (await client.post(COMPLETIONS, json=completion())).json()

    assert document.pop("id").startswith("cmpl-")
    assert document.pop("created") > 0
    assert document == {
        "object": "text_completion",
        "model": "poet",
        "choices": [{"index": 0, "text": "light on the bed", "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5},
        "timing": {"queue_s": 0.25},
    }


async def test_chat_messages_reach_the_engine_as_turns(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "moon "}, {"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": "ok", "name": "poet"},
        {"role": "user", "content": "go on"},
    ]

    assert (await client.post(CHAT, json=chat(messages=messages))).status_code == 200

    [task] = engine.tasks
    assert task.prompt == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "moon rain"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "go on"},
    )


async def test_a_completion_prompt_reaches_the_engine_as_it_is(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    engine.enqueue("x")

    await client.post(COMPLETIONS, json=completion(prompt=" moon\n"))
    await client.post(COMPLETIONS, json=completion(prompt=[" moon\n"]))

    assert [task.prompt for task in engine.tasks] == [" moon\n", " moon\n"]


async def test_as_many_prompts_as_langchain_sends_at_once_are_taken(client: httpx2.AsyncClient, engine: Any) -> None:
    for number in range(20):
        engine.enqueue(str(number))

    document = (await client.post(COMPLETIONS, json=completion(prompt=["moon"] * 20))).json()

    assert [choice["text"] for choice in document["choices"]] == [str(number) for number in range(20)]


async def test_several_prompts_are_several_choices_of_one_answer(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("first", prompt_tokens=3, completion_tokens=4, queue_s=0.5)
    engine.enqueue("second", prompt_tokens=5, completion_tokens=6, finish_reason="length")

    document = (await client.post(COMPLETIONS, json=completion(prompt=["a", "b"], seed=1))).json()

    assert [task.prompt for task in engine.tasks] == ["a", "b"]
    assert document["choices"] == [
        {"index": 0, "text": "first", "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "text": "second", "logprobs": None, "finish_reason": "length"},
    ]
    assert document["usage"] == {"prompt_tokens": 8, "completion_tokens": 10, "total_tokens": 18}
    assert document["timing"] == {"queue_s": 0.5}


@pytest.mark.parametrize("stream", [False, True])
async def test_of_several_prompts_the_one_that_is_refused_is_named(
    client: httpx2.AsyncClient, engine: Any, stream: bool
) -> None:
    gate = asyncio.Event()
    engine.enqueue(gate)
    engine.refuse(invalid_field("prompt", "has 300 tokens"))

    answer = await client.post(COMPLETIONS, json=completion(prompt=["a", "b", "c"], stream=stream))

    assert answer.status_code == 400
    assert answer.json()["detail"] == "prompt.1: has 300 tokens"
    assert engine.closed == [True], "the first one is not wanted any more"


async def test_of_several_prompts_the_first_failure_ends_them_all(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(asyncio.Event())
    engine.enqueue(ProblemError(problems.INTERNAL, "The model failed on this request."))

    answer = await client.post(COMPLETIONS, json=completion(prompt=["a", "b"]))

    assert answer.status_code == 500
    assert engine.closed == [True, True]


async def test_sampling_parameters_reach_the_engine(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    fields = {"max_tokens": 7, "temperature": 0, "top_p": 0.5, "stop": "\n", "seed": 2**63 - 1}

    await client.post(COMPLETIONS, json=completion(**fields))

    sampling = engine.tasks[0].sampling
    given = sampling.model_dump(include=set(Sampling.model_fields), exclude_none=True)
    assert given == fields | {"stop": ["\n"], "temperature": 0.0}


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [({"max_completion_tokens": 5}, 5), ({"max_tokens": 6}, 6), ({"max_tokens": 6, "max_completion_tokens": 5}, 5)],
)
async def test_both_names_of_the_token_limit_work(
    client: httpx2.AsyncClient, engine: Any, fields: dict[str, int], max_tokens: int
) -> None:
    engine.enqueue("x")

    await client.post(CHAT, json=chat(**fields))

    assert engine.tasks[0].sampling.max_tokens == max_tokens


HABITS = {
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "user": "me",
    "stream": False,
    "stream_options": None,
    "seed": None,
    "stop": None,
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(**HABITS, logprobs=False, metadata={"a": "b"}, store=False)),
        (COMPLETIONS, completion(**HABITS, best_of=1, echo=False, logprobs=None, suffix="")),
    ],
)
async def test_habitual_fields_that_ask_for_nothing_are_taken(
    client: httpx2.AsyncClient, engine: Any, path: str, body: dict[str, Any]
) -> None:
    engine.enqueue("x")

    assert (await client.post(path, json=body)).status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_how_long_a_prompt_and_a_text_may_be_is_for_the_model_to_say(
    client: httpx2.AsyncClient, engine: Any, path: str
) -> None:
    engine.enqueue("moon")
    long = "x" * 500_000
    body = (
        chat() | {"messages": [{"role": "user", "content": long}]} if path == CHAT else completion() | {"prompt": long}
    )

    answer = await client.post(path, json=body | {"max_tokens": 100_000})

    assert answer.status_code == 200, answer.text
    [task] = engine.tasks
    assert len(str(task.prompt)) >= 500_000
    assert task.sampling.max_tokens == 100_000


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CHAT, "n", 21),
        (CHAT, "tools", [{"type": "function"}]),
        (CHAT, "response_format", {"type": "yaml"}),
        (CHAT, "logprobs", 1),
        (CHAT, "presence_penalty", 2.5),
        (CHAT, "frequency_penalty", -3),
        (CHAT, "logit_bias", {"five": 1.0}),
        (CHAT, "max_completion_tokens", 0),
        (CHAT, "messages", []),
        (CHAT, "messages", "moon"),
        (CHAT, "messages", None),
        (CHAT, "messages", [{"role": "user", "content": "x"}] * 1_025),
        (CHAT, "messages.0.role", [{"role": "cook", "content": "x"}]),
        (CHAT, "messages.0.content", [{"role": "user"}]),
        (COMPLETIONS, "n", 0),
        (COMPLETIONS, "best_of", 2),
        (COMPLETIONS, "echo", True),
        (COMPLETIONS, "logprobs", 21),
        (COMPLETIONS, "suffix", "end"),
        (COMPLETIONS, "prompt", ""),
        (COMPLETIONS, "prompt", " \n"),
        (COMPLETIONS, "prompt", None),
        (COMPLETIONS, "prompt", []),
        (COMPLETIONS, "prompt", ["x"] * 21),
        (COMPLETIONS, "prompt.1", ["x", ""]),
        (COMPLETIONS, "prompt", [1, 2]),
        (COMPLETIONS, "prompt", [[1, 2], [3]]),
        (COMPLETIONS, "max_tokens", 0),
        (COMPLETIONS, "max_tokens", "5"),
        (COMPLETIONS, "temperature", -0.1),
        (COMPLETIONS, "temperature", 2.1),
        (COMPLETIONS, "temperature", "hot"),
        (COMPLETIONS, "top_p", 0),
        (COMPLETIONS, "top_p", 1.1),
        (COMPLETIONS, "seed", -1),
        (COMPLETIONS, "seed", 2**63),
        (COMPLETIONS, "stop", ["a", "b", "c", "d", "e"]),
        (COMPLETIONS, "stop.0", [""]),
        (COMPLETIONS, "stop.0", ["x" * 257]),
        (COMPLETIONS, "stream", "yes"),
        (COMPLETIONS, "stream_options.unknown", {"unknown": 1}),
        (COMPLETIONS, "colour", "blue"),
    ],
)
async def test_a_field_that_cannot_be_honoured_is_refused_by_name(
    client: httpx2.AsyncClient, engine: Any, path: str, field: str, value: object
) -> None:
    body = chat() if path == CHAT else completion()

    answer = await client.post(path, json=body | {field.partition(".")[0]: value})

    assert answer.status_code == 400
    problem = answer.json()
    assert problem["type"] == "urn:shangcai:problem:invalid-field"
    # A union names its branches too.
    assert any(error["field"].startswith(field) for error in problem["errors"]), problem
    assert problem["error"]["type"] == "invalid_request_error"
    assert problem["error"]["param"].startswith(field)
    assert problem["error"]["code"] == "invalid-field"
    assert problem["error"]["message"] == problem["detail"]
    assert engine.tasks == []


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat(model="cook")), (COMPLETIONS, completion(model="cook"))])
async def test_an_unknown_model_is_not_found(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await client.post(path, json=body)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"
    assert "'cook'" in answer.json()["error"]["message"]
    assert "'poet'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat()), (COMPLETIONS, completion())])
async def test_a_missing_model_name_is_named(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
    del body["model"]

    answer = await client.post(path, json=body)

    assert answer.status_code == 400
    assert answer.json()["detail"] == "model: is required"


async def test_a_full_engine_answers_503_with_the_time_to_come_back(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.refuse(ProblemError(problems.OVERLOADED, "64 requests are waiting already.", retry_after=12.1))

    answer = await client.post(CHAT, json=chat())

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "13"
    assert answer.json()["type"] == "urn:shangcai:problem:overloaded"
    assert answer.json()["error"] == {
        "message": "64 requests are waiting already.",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
    }


async def test_a_problem_in_the_middle_is_the_whole_answer(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("half a", ProblemError(problems.INTERNAL, "The model failed on this request."))

    answer = await client.post(CHAT, json=chat())

    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The model failed on this request."
    assert "half a" not in answer.text


async def test_a_mistake_of_ours_is_a_problem_without_traceback(
    client: httpx2.AsyncClient, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine.refuse(KeyError("secret detail"))

    answer = await client.post(CHAT, json=chat())

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


async def test_the_engine_gets_one_task_with_the_fields_of_the_request(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")

    await client.post(COMPLETIONS, json=completion())

    [task] = engine.tasks
    assert isinstance(task, TextTask)
    assert task.sampling.max_tokens is None
    assert engine.closed == [True]
