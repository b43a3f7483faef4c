"""KServe's V1 protocol: `:predict`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from contract import problems
from contract.problems import ProblemError
from contract.texts.sampling import Sampling

PREDICT = "/v1/models/poet:predict"


def instances(*prompts: str, **fields: Any) -> dict[str, Any]:
    return {"instances": [{"prompt": prompt, **fields} for prompt in prompts]}


async def test_one_instance_gets_one_prediction(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("床前", "明月光", prompt_tokens=3, completion_tokens=6)

    answer = await client.post(PREDICT, json=instances("月"))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "predictions": [
            {
                "text": "床前明月光",
                "finish_reason": "stop",
                "usage": {"prompt_tokens": 3, "completion_tokens": 6},
            }
        ]
    }
    assert engine.tasks[0].prompt == ({"role": "user", "content": "月"},)


async def test_predictions_come_in_the_order_of_the_instances(client: httpx2.AsyncClient, engine: Any) -> None:
    gate = asyncio.Event()
    engine.enqueue(gate, "first")
    engine.enqueue("second")
    asyncio.get_running_loop().call_later(0.05, gate.set)

    answer = await client.post(PREDICT, json=instances("a", "b"))

    assert [prediction["text"] for prediction in answer.json()["predictions"]] == ["first", "second"]


async def test_each_instance_has_its_own_sampling(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    engine.enqueue("x")
    fields = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.5, "stop": ["\n"], "seed": 1}
    body = {"instances": [{"prompt": "a", **fields}, {"prompt": "b"}]}

    await client.post(PREDICT, json=body)

    names = set(Sampling.model_fields)
    assert engine.tasks[0].sampling.model_dump(include=names, exclude_none=True) == fields
    assert engine.tasks[1].sampling.model_dump(include=names) == dict.fromkeys(names)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "application/JSON"],
)
async def test_every_spelling_of_json_is_json(client: httpx2.AsyncClient, engine: Any, content_type: str) -> None:
    engine.enqueue("x")

    answer = await client.post(
        PREDICT, content='{"instances": [{"prompt": "月"}]}'.encode(), headers={"Content-Type": content_type}
    )

    assert answer.status_code == 200
    assert engine.tasks[0].prompt == ({"role": "user", "content": "月"},)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instances"),
        ({"instances": None}, "instances"),
        ({"instances": "moon"}, "instances"),
        ({"instances": {}}, "instances"),
        ({"instances": []}, "instances"),
        (instances(*["a"] * 17), "instances"),
        ({"instances": ["moon"]}, "instances.0"),
        ({"instances": [{}]}, "instances.0.prompt"),
        ({"instances": [{"prompt": "a"}, {"prompt": ""}]}, "instances.1.prompt"),
        (instances(" "), "instances.0.prompt"),
        (instances("a", max_tokens=0), "instances.0.max_tokens"),
        (instances("a", max_tokens="5"), "instances.0.max_tokens"),
        (instances("a", max_tokens=True), "instances.0.max_tokens"),
        (instances("a", temperature=-1), "instances.0.temperature"),
        (instances("a", temperature="hot"), "instances.0.temperature"),
        (instances("a", top_p=0), "instances.0.top_p"),
        (instances("a", seed=-1), "instances.0.seed"),
        (instances("a", stop=[""]), "instances.0.stop.0"),
        (instances("a", colour="blue"), "instances.0.colour"),
        (instances("a") | {"parameters": {}}, "parameters"),
        ([1], "body"),
        ("moon", "body"),
        (7, "body"),
        (None, "body"),
    ],
)
async def test_a_bad_field_is_refused_by_name(
    client: httpx2.AsyncClient, engine: Any, body: object, field: str
) -> None:
    answer = await client.post(PREDICT, content=json.dumps(body), headers={"Content-Type": "application/json"})

    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:shangcai:problem:invalid-field"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["error"] == problem["detail"]
    assert "_V1Body" not in answer.text
    assert "TextPrompt" not in answer.text
    assert engine.tasks == []


async def test_an_unknown_field_is_told_what_is_allowed(client: httpx2.AsyncClient) -> None:
    problem = (await client.post(PREDICT, json=instances("a", colour="blue"))).json()

    assert "allowed are" in problem["detail"]
    assert "max_tokens" in problem["detail"]


async def test_an_unknown_model_is_not_found(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/models/cook:predict", json=instances("a"))

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:shangcai:problem:unknown-model"
    assert "cook" in answer.json()["error"]


async def test_a_full_engine_answers_503_with_the_time_to_come_back(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.refuse(ProblemError(problems.OVERLOADED, "64 requests are waiting already.", retry_after=12.1))

    answer = await client.post(PREDICT, json=instances("a"))

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "13"
    assert answer.json()["error"] == "64 requests are waiting already."


async def test_a_mistake_of_ours_is_a_problem_without_traceback(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.refuse(KeyError("secret detail"))

    answer = await client.post(PREDICT, json=instances("a"))

    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:shangcai:problem:internal"
    assert answer.json()["error"] == answer.json()["detail"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_explaining_is_not_implemented(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/models/poet:explain", json=instances("a"))

    assert answer.status_code == 501
    assert answer.json()["type"] == "urn:shangcai:problem:not-implemented"
