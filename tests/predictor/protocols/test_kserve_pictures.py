"""Pictures over KServe's V1 and V2 protocols, V2 as JSON and with binary tensors."""

from __future__ import annotations

import base64
import io
import json
import struct
from typing import Any

import httpx2
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/painter:predict"
INFER = "/v2/models/painter/infer"


@pytest.fixture
def client(painter_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return painter_client


def opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data))


def infer(*prompts: str, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [len(prompts)], "data": list(prompts)}
    return {"inputs": [tensor], "parameters": {"seed": 3} | parameters}


def outputs(document: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output for output in document["outputs"]}


# V1


async def test_a_v1_prediction_is_the_pictures_of_an_instance(client: httpx2.AsyncClient, apart: Any) -> None:
    instances = [{"prompt": "a cat", "seed": 3, "n": 2}, {"prompt": "画一只猫", "format": "jpeg", "size": "16x32"}]

    answer = await client.post(PREDICT, json={"instances": instances})

    assert answer.status_code == 200, answer.text
    cats, cat = answer.json()["predictions"]
    assert [(one["seed"], one["media_type"], one["width"], one["height"]) for one in cats["images"]] == [
        (3, "image/png", 32, 32),
        (4, "image/png", 32, 32),
    ]
    assert (cats["steps"], cats["understood"]) == (4, None)
    [jpeg] = cat["images"]
    assert opened(base64.b64decode(jpeg["data"])).format == "JPEG"
    assert (jpeg["media_type"], jpeg["width"], jpeg["height"]) == ("image/jpeg", 16, 32)


async def test_a_v1_png_says_what_it_was_made_from(client: httpx2.AsyncClient) -> None:
    answer = await client.post(PREDICT, json={"instances": [{"prompt": "画一只猫", "seed": 3, "steps": 2}]})

    [image] = answer.json()["predictions"][0]["images"]
    png = opened(base64.b64decode(image["data"]))
    assert png.text == {"prompt": "画一只猫", "model": "painter", "seed": "3", "steps": "2"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "33x33"), ("steps", 0), ("n", 100), ("guidance", -1), ("seed", 2**70), ("format", "gif"), ("hue", 1)],
)
async def test_what_is_wrong_with_a_v1_instance_is_named(client: httpx2.AsyncClient, field: str, value: Any) -> None:
    answer = await client.post(PREDICT, json={"instances": [{"prompt": "a", field: value}]})

    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["field"] == f"instances.0.{field}"


async def test_more_pictures_than_there_are_places_are_refused_for_good(client: httpx2.AsyncClient) -> None:
    answer = await client.post(PREDICT, json={"instances": [{"prompt": "a", "n": 8}] * 16})

    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["field"] == "instances"
    assert "128" in error["detail"]


# V2


async def test_a_v2_answer_is_a_tensor_of_files_and_one_of_seeds(client: httpx2.AsyncClient, apart: Any) -> None:
    answer = await client.post(INFER, json=infer("a cat", "moon", n=2))

    assert answer.status_code == 200, answer.text
    tensors = outputs(answer.json())
    assert tensors["seed"]["data"] == [3, 4, 3, 4]
    assert (tensors["image"]["datatype"], tensors["image"]["shape"]) == ("BYTES", [4])
    images = [opened(base64.b64decode(data)) for data in tensors["image"]["data"]]
    assert [image.size for image in images] == [(32, 32)] * 4
    v1 = await client.post(PREDICT, json={"instances": [{"prompt": "a cat", "seed": 3}]})
    [first] = v1.json()["predictions"][0]["images"]
    assert apart(images[0], opened(base64.b64decode(first["data"]))) <= 1


async def test_a_v2_png_says_what_it_was_made_from(client: httpx2.AsyncClient) -> None:
    answer = await client.post(INFER, json=infer("画一只猫", "moon", steps=2))

    texts = [opened(base64.b64decode(data)).text for data in outputs(answer.json())["image"]["data"]]
    assert texts == [
        {"prompt": prompt, "model": "painter", "seed": "3", "steps": "2"} for prompt in ("画一只猫", "moon")
    ]


async def test_v2_takes_and_gives_binary_tensors(client: httpx2.AsyncClient) -> None:
    prompt = "画一只猫".encode()
    raw = struct.pack("<I", len(prompt)) + prompt
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"seed": 3, "binary_data_output": True}}).encode()

    answer = await client.post(
        INFER,
        content=head + raw,
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
    )

    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    tensors = outputs(json.loads(answer.content[:length]))
    size = tensors["image"]["parameters"]["binary_data_size"]
    files = answer.content[length : length + size]
    [[data_size]] = [struct.unpack("<I", files[:4])]
    data = files[4 : 4 + data_size]
    assert opened(data if data[:4] == b"\x89PNG" else base64.b64decode(data)).size == (32, 32)


async def test_v2_gives_only_the_outputs_that_are_asked_for(client: httpx2.AsyncClient) -> None:
    answer = await client.post(INFER, json=infer("a") | {"outputs": [{"name": "seed"}]})

    assert list(outputs(answer.json())) == ["seed"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (infer("a", size="33x33"), "size"),
        (infer("a", steps=0), "steps"),
        (infer("a", max_tokens=5), "max_tokens"),
        (infer(" "), "prompt"),
        (infer("a") | {"outputs": [{"name": "text"}]}, "outputs"),
    ],
)
async def test_what_is_wrong_with_a_v2_request_is_named(client: httpx2.AsyncClient, body: Any, field: str) -> None:
    answer = await client.post(INFER, json=body)

    assert answer.status_code == 400
    assert field in answer.json()["detail"]


async def test_metadata_tell_of_the_tensors(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/v2/models/painter")).json()

    assert document["name"] == "painter"
    assert [tensor["name"] for tensor in document["inputs"]] == ["prompt"]
    assert [tensor["name"] for tensor in document["outputs"]] == ["image", "seed"]
