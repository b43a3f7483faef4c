"""KServe's V2 protocol (Open Inference Protocol): `infer`."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx2
import pytest

from contract.texts.sampling import Sampling

INFER = "/v2/models/poet/infer"
JSON_LENGTH = "Inference-Header-Content-Length"


def prompts(*texts: Any, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)} | fields]}


def binary(*texts: bytes, cut: int | None = None, **fields: Any) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request with a binary tensor."""
    tensor = b"".join(struct.pack("<I", len(text)) + text for text in texts)[:cut]
    described = {"name": "prompt", "datatype": "BYTES", "shape": [len(texts)]}
    head = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": len(tensor)}}]} | fields).encode()
    return head + tensor, {JSON_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}


async def test_every_prompt_gets_a_row_in_every_output(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("床前", "明月光", prompt_tokens=3, completion_tokens=6)
    engine.enqueue("rain", finish_reason="length", prompt_tokens=4, completion_tokens=1)

    answer = await client.post(INFER, json=prompts("月", "rain") | {"id": "request-1"})

    assert answer.status_code == 200
    document = answer.json()
    assert (document["id"], document["model_name"]) == ("request-1", "poet")
    outputs = {output["name"]: output for output in document["outputs"]}
    assert {name: (output["datatype"], output["shape"], output["data"]) for name, output in outputs.items()} == {
        "text": ("BYTES", [2], ["床前明月光", "rain"]),
        "finish_reason": ("BYTES", [2], ["stop", "length"]),
        "prompt_tokens": ("INT64", [2], [3, 4]),
        "completion_tokens": ("INT64", [2], [6, 1]),
    }
    assert [task.prompt[0]["content"] for task in engine.tasks] == ["月", "rain"]


async def test_a_binary_tensor_is_a_list_of_prompts_too(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("a")
    engine.enqueue("b")
    body, headers = binary("月".encode(), b"rain")

    answer = await client.post(INFER, content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    assert [task.prompt[0]["content"] for task in engine.tasks] == ["月", "rain"]
    assert next(o["data"] for o in answer.json()["outputs"] if o["name"] == "text") == ["a", "b"]


async def test_tools_are_refused_because_no_output_has_calls(client: httpx2.AsyncClient) -> None:
    tools = [{"type": "function", "function": {"name": "rain"}}]
    body, headers = binary(b"moon", parameters={"tools": tools})
    answers = [
        await client.post(INFER, content=body, headers=headers),
        await client.post(INFER, json=prompts("moon") | {"parameters": {"tools": tools}}),  # KServe's own refusal
    ]

    for answer in answers:
        assert answer.status_code == 400
        assert "tools" in answer.text
    assert "have no place for calls" in answers[0].text


async def test_outputs_are_binary_when_asked_for(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("床前")
    wanted = [{"name": "text", "parameters": {"binary_data": True}}]

    answer = await client.post(INFER, json=prompts("a") | {"outputs": wanted})

    assert answer.status_code == 200, answer.text
    assert answer.content.endswith(struct.pack("<I", 6) + "床前".encode())
    described = json.loads(answer.content[: int(answer.headers[JSON_LENGTH])])
    assert [output["name"] for output in described["outputs"]] == ["text"]


async def test_every_output_is_binary_when_the_parameter_says_so(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("床前", prompt_tokens=3, completion_tokens=6)

    answer = await client.post(INFER, json=prompts("a") | {"parameters": {"binary_data_output": True}})

    assert answer.status_code == 200, answer.text
    texts = [struct.pack("<I", len(text)) + text for text in ("床前".encode(), b"stop")]
    assert answer.content.endswith(b"".join(texts) + struct.pack("<qq", 3, 6))


async def test_parameters_are_the_sampling_of_every_prompt(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    engine.enqueue("x")
    parameters = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.5, "stop": "\n", "seed": 1}

    answer = await client.post(INFER, json=prompts("a", "b") | {"parameters": parameters})

    assert answer.status_code == 200, answer.text
    for task in engine.tasks:
        given = task.sampling.model_dump(include=set(Sampling.model_fields), exclude_none=True)
        assert given == parameters | {"stop": ["\n"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": "moon"}, "inputs"),
        (prompts("a", name="text"), "inputs"),
        (prompts("a", datatype="FP32"), "inputs"),
        ({"inputs": prompts("a")["inputs"] * 2}, "inputs"),
        (prompts(), "inputs.prompt"),
        (prompts(*["a"] * 17), "inputs.prompt"),
        (prompts("a", shape=[3]), "inputs.prompt"),
        (prompts(7), "prompt"),
        (prompts(None), "prompt"),
        (prompts(""), "prompt"),
        (prompts("\ud800"), "prompt"),
        (prompts({"a": 1}), "prompt"),
        (prompts(["a", ["b"]]), "inputs.prompt"),
        (prompts("a", data="a"), "inputs.0.data"),
        (prompts("a", shape="one"), "inputs.0.shape"),
        (prompts("a") | {"parameters": {"max_tokens": 0}}, "max_tokens"),
        (prompts("a") | {"parameters": {"temperature": "hot"}}, "temperature"),
        (prompts("a") | {"parameters": {"temperature": "nan"}}, "temperature"),
        (prompts("a") | {"parameters": {"colour": "blue"}}, "colour"),
        (prompts("a") | {"parameters": 5}, "parameters"),
        (prompts("a") | {"outputs": [{"name": "colour"}]}, "outputs"),
        (prompts("a") | {"outputs": 5}, "outputs"),
    ],
)
async def test_a_wrong_tensor_or_parameter_is_refused_by_name(
    client: httpx2.AsyncClient, engine: Any, body: dict[str, Any], field: str
) -> None:
    answer = await client.post(INFER, content=json.dumps(body), headers={"Content-Type": "application/json"})

    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:shangcai:problem:invalid-field"
    assert any(error["field"].startswith(field) for error in problem["errors"]), problem
    assert problem["error"] == problem["detail"]
    assert engine.tasks == []


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", {"Content-Type": "application/octet-stream"}),
        (b"moon", {"Content-Type": "text/plain"}),
        (b"moon", {JSON_LENGTH: "4"}),
        (b"moon", {JSON_LENGTH: "four"}),
        (b"{}", {JSON_LENGTH: "2", "Content-Type": "application/octet-stream"}),
        (b"[]", {JSON_LENGTH: "2", "Content-Type": "application/octet-stream"}),
        (b'{"inputs": 5}', {JSON_LENGTH: "13", "Content-Type": "application/octet-stream"}),
        (b'{"inputs": [{}]}', {JSON_LENGTH: "16", "Content-Type": "application/octet-stream"}),
        binary(b"moon", cut=6),
        binary(b"\xff\xfe"),
        binary(b"moon", parameters=5),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_400(
    client: httpx2.AsyncClient, engine: Any, content: bytes, headers: dict[str, str]
) -> None:
    answer = await client.post(INFER, content=content, headers=headers)

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"]
    assert engine.tasks == []


async def test_the_metadata_describes_the_tensors(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/v2/models/poet")).json()

    assert document["inputs"] == [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in document["outputs"]] == [
        "text",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
    ]


async def test_an_unknown_model_is_not_found(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v2/models/cook/infer", json=prompts("a"))

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:shangcai:problem:unknown-model"


@pytest.mark.parametrize("path", ["/v2/models/poet/versions/1/infer", "/v2/models/poet/versions/1/ready"])
async def test_versions_are_not_implemented(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.request("GET" if path.endswith("ready") else "POST", path, json=prompts("a"))

    assert answer.status_code == 501
    assert answer.json()["type"] == "urn:shangcai:problem:not-implemented"


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_no_client_can_load_or_unload_the_model(client: httpx2.AsyncClient, engine: Any, verb: str) -> None:
    answer = await client.post(f"/v2/repository/models/poet/{verb}")

    assert answer.status_code == 501
    assert answer.json()["type"] == "urn:shangcai:problem:not-implemented"
    engine.enqueue("still here")
    assert (await client.post(INFER, json=prompts("a"))).status_code == 200
