"""Pictures that begin with another: over OpenAI's route as a form and as JSON, over KServe's protocols, as an event."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from contract.limits import IMAGE_BYTES

pytestmark = pytest.mark.slow

ROUTE = "/openai/v1/images/edits"
BODY = {"model": "painter", "prompt": "a cat", "seed": 7}


def file_of(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


PICTURE = file_of(Image.new("RGB", (32, 16), "red"))
HOLE = Image.new("RGBA", (32, 16), "red")
HOLE.paste((0, 0, 0, 0), (0, 0, 16, 16))
MASK = file_of(HOLE)
IMAGE = base64.b64encode(PICTURE).decode()


@pytest.fixture
def client(painter_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return painter_client


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


async def made(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(ROUTE, json=BODY | {"image": IMAGE} | body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_json_a_data_url_a_form_and_openais_client_give_the_same(client: httpx2.AsyncClient, apart: Any) -> None:
    first = await made(client, strength=0.5, steps=6, mask=base64.b64encode(MASK).decode())
    assert (first["size"], first["steps"]) == ("32x16", 3)
    expected = opened(first["data"][0]["b64_json"])

    by_address = await made(
        client, image=f"data:image/png;base64,{IMAGE}", strength=0.5, steps=6, mask=base64.b64encode(MASK).decode()
    )
    form = await client.post(
        ROUTE,
        data={"model": "painter", "prompt": "a cat", "seed": "7", "strength": "0.5", "steps": "6", "size": "auto"},
        files={"image[]": ("cat.png", PICTURE, "image/png"), "mask": ("mask.png", MASK)},
    )
    assert form.status_code == 200, form.text
    async with openai.AsyncOpenAI(base_url=f"{client.base_url}/openai/v1", api_key="none", max_retries=0) as library:
        theirs = await library.images.edit(
            model="painter",
            prompt="a cat",
            image=("cat.png", PICTURE),
            mask=("mask.png", MASK),
            response_format="b64_json",
            extra_body={"seed": 7, "strength": 0.5, "steps": 6},
        )

    assert theirs.data is not None
    for data in (by_address["data"][0]["b64_json"], form.json()["data"][0]["b64_json"], theirs.data[0].b64_json):
        assert apart(opened(str(data)), expected) == 0


async def test_openais_client_streams_the_events_of_an_edit(client: httpx2.AsyncClient) -> None:
    async with openai.AsyncOpenAI(base_url=f"{client.base_url}/openai/v1", api_key="none", max_retries=0) as library:
        stream = await library.images.edit(
            model="painter",
            prompt="a cat",
            image=[PICTURE],
            n=2,
            stream=True,
            partial_images=1,
            extra_body={"progress": True},
        )
        kinds = [event.type async for event in stream]
    assert kinds.count("image_edit.partial_image") == 2
    assert kinds.count("image_edit.completed") == 2
    assert set(map(str, kinds)) == {
        f"image_edit.{kind}" for kind in ("started", "progress", "partial_image", "completed")
    }


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"image": None}, "image"),
        ({"image": "R0lGODlh"}, "image"),
        ({"image": IMAGE[:40]}, "image"),
        ({"image": ["a", "b"]}, "image"),
        ({"mask": "x"}, "mask"),
        ({"strength": 0}, "strength"),
        ({"strength": 0.1}, "strength"),
        ({"markup": "x"}, "markup"),
        ({"input_fidelity": "high"}, "input_fidelity"),
        ({"images": []}, "images"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(client: httpx2.AsyncClient, body: dict[str, Any], named: str) -> None:
    answer = await client.post(ROUTE, json=BODY | {"image": IMAGE} | body)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [named]


async def test_a_form_of_several_pictures_is_refused_and_so_is_one_that_is_none(client: httpx2.AsyncClient) -> None:
    several = await client.post(ROUTE, data={"model": "painter", "prompt": "x"}, files=[("image[]", PICTURE)] * 2)
    assert (several.status_code, several.json()["errors"][0]["field"]) == (400, "image")
    none = await client.post(ROUTE, content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (none.status_code, none.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_the_largest_pictures_pass_and_no_larger_body(client: httpx2.AsyncClient) -> None:
    padded = PICTURE + b"\0" * (IMAGE_BYTES - len(PICTURE))  # what comes after the end of a PNG is not read
    answer = await client.post(ROUTE, data={"model": "painter", "prompt": "x"}, files={"image": padded, "mask": padded})
    assert answer.status_code == 200, answer.text
    await made(client, image=base64.b64encode(padded).decode())
    too_large = await client.post(ROUTE, content=b" " * 20_000_000, headers={"Content-Type": "application/json"})
    assert too_large.status_code == 413


async def test_kserves_protocols_take_the_same_fields(client: httpx2.AsyncClient, apart: Any) -> None:
    expected = opened((await made(client, strength=0.5))["data"][0]["b64_json"])
    fields = {"seed": 7, "image": IMAGE, "strength": 0.5}

    first = await client.post("/v1/models/painter:predict", json={"instances": [{"prompt": "a cat", **fields}]})
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a cat"]}
    second = await client.post("/v2/models/painter/infer", json={"inputs": [tensor], "parameters": fields})
    wrong = {"instances": [{"prompt": "a cat", "strength": 0.5}]}
    refused = await client.post("/v1/models/painter:predict", json=wrong)

    assert apart(opened(first.json()["predictions"][0]["images"][0]["data"]), expected) == 0
    images = {output["name"]: output for output in second.json()["outputs"]}["image"]
    assert apart(opened(images["data"][0]), expected) == 0
    assert (refused.status_code, "strength: is taken beside image only" in refused.text) == (400, True)


async def test_an_event_takes_the_same_fields(client: httpx2.AsyncClient, apart: Any) -> None:
    expected = opened((await made(client, strength=0.5))["data"][0]["b64_json"])
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "edit",
        "ce-source": "/tests",
        "ce-type": "ai.shangcai.generation.requested.v1",
        "content-type": "application/json",
    }
    data = {"prompt": "a cat", "seed": 7, "image": IMAGE, "strength": 0.5}
    answer = await client.post("/", content=json.dumps(data), headers=headers)
    assert answer.headers["ce-type"] == "ai.shangcai.generation.completed.v1", answer.text
    assert apart(opened(answer.json()["images"][0]["data"]), expected) == 0
