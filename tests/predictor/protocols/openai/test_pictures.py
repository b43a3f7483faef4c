"""OpenAI's picture route: whole, as a stream, through OpenAI's own client, and with whatever is wrong."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from contract.limits import PICTURES, PREVIEWS, PROMPT_CHARS, STEPS
from tests.support.engine_cores import held
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

ROUTE = "/openai/v1/images/generations"
BODY = {"model": "painter", "prompt": "画一只猫", "seed": 7}


@pytest.fixture
def client(painter_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return painter_client


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


async def events(client: httpx2.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    async with client.stream("POST", ROUTE, json=BODY | {"stream": True} | body) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        text = (await answer.aread()).decode()
    documents = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        kind, data = event.split("\n")
        document = json.loads(data.removeprefix("data: "))
        if kind != "event: error":
            assert kind == f"event: {document['type']}"
        documents.append(document)
    return documents


def of(kind: str, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document for document in documents if document["type"] == f"image_generation.{kind}"]


# Whole


async def test_an_answer_is_what_openai_sends_and_the_seeds(client: httpx2.AsyncClient) -> None:
    answer = await client.post(ROUTE, json=BODY | {"n": 2, "size": "16x32", "steps": 3})

    assert answer.status_code == 200
    document = answer.json()
    assert [(item["seed"], item["revised_prompt"]) for item in document["data"]] == [(7, None), (8, None)]
    assert [opened(item["b64_json"]).size for item in document["data"]] == [(16, 32)] * 2
    assert (document["size"], document["output_format"], document["steps"]) == ("16x32", "png", 3)
    assert document["usage"]["total_tokens"] == 0
    assert document["timing"]["queue_s"] >= 0
    assert document["created"] > 1_700_000_000


async def test_every_event_names_what_decided_the_picture(client: httpx2.AsyncClient, painter: Any) -> None:
    documents = await events(client, steps=3, partial_images=1, progress=True)
    assert len(documents) > 4
    assert {document["system_fingerprint"] for document in documents} == {painter.fingerprint}
    assert {document["model"] for document in documents} == {"painter"}
    assert (await client.post(ROUTE, json=BODY)).json()["system_fingerprint"] == painter.fingerprint


async def test_a_png_says_what_it_was_made_from(client: httpx2.AsyncClient) -> None:
    answer = await client.post(ROUTE, json=BODY)

    png: Any = opened(answer.json()["data"][0]["b64_json"])
    assert png.format == "PNG"
    assert png.text == {"prompt": "画一只猫", "model": "painter", "seed": "7", "steps": "4"}


@pytest.mark.parametrize("form", ["jpeg", "webp"])
async def test_other_formats_show_the_same_picture(client: httpx2.AsyncClient, form: str) -> None:
    png, other = [
        opened((await client.post(ROUTE, json=BODY | {"output_format": each})).json()["data"][0]["b64_json"])
        for each in ("png", form)
    ]

    assert other.format == form.upper()
    assert other.size == png.size
    assert similar(png, other) > 0.6  # noise, which neither format is made for


def similar(one: Image.Image, other: Image.Image) -> float:
    """The correlation of two pictures at the size of the smaller."""
    size = (min(one.width, other.width), min(one.height, other.height))
    sides = [
        np.asarray(each.convert("RGB").resize(size, Image.Resampling.BOX), np.float64).ravel() for each in (one, other)
    ]
    matrix: Any = np.corrcoef(np.stack(sides))
    return float(matrix[0, 1])


async def test_auto_and_null_leave_it_to_the_model(client: httpx2.AsyncClient) -> None:
    fields = {"size": "auto", "quality": "auto", "background": "auto", "moderation": "auto", "user": "u", "n": None}

    answer = await client.post(ROUTE, json=BODY | fields | {"response_format": "b64_json", "steps": None})

    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "32x32"


async def test_a_prompt_of_any_text_is_kept_as_it_is(client: httpx2.AsyncClient) -> None:
    prompt = 'a\0b\r\n"\\\u2028🌙' + "x" * 30_000

    answer = await client.post(ROUTE, json=BODY | {"prompt": prompt})

    png: Any = opened(answer.json()["data"][0]["b64_json"])
    assert png.text["prompt"] == prompt.replace("\0", ""), "which a text chunk of a PNG cannot hold"


# As a stream


async def test_a_stream_is_only_the_pictures_unless_more_is_asked_for(client: httpx2.AsyncClient) -> None:
    documents = await events(client, n=2)

    assert [document["type"] for document in documents] == ["image_generation.completed"] * 2
    assert {document["image_index"]: document["seed"] for document in documents} == {0: 7, 1: 8}
    assert {opened(document["b64_json"]).size for document in documents} == {(32, 32)}


async def test_a_streamed_picture_is_the_one_that_is_answered_whole(client: httpx2.AsyncClient, apart: Any) -> None:
    whole = (await client.post(ROUTE, json=BODY)).json()["data"][0]["b64_json"]

    [streamed] = await events(client)

    assert apart(opened(streamed["b64_json"]), opened(whole)) <= 1


@pytest.mark.parametrize(
    ("steps", "asked", "at"),
    [
        (8, 3, [2, 4, 6]),
        (10, 4, [2, 4, 6, 8]),
        (8, 0, []),
        (8, 1, [4]),
        (3, 16, [1, 2]),
        (1, 4, []),
        (5, 4, [1, 2, 3, 4]),
    ],
)
async def test_there_are_as_many_previews_as_were_asked_for_and_steps_allow(
    client: httpx2.AsyncClient, steps: int, asked: int, at: list[int]
) -> None:
    documents = await events(client, steps=steps, partial_images=asked)

    previews = of("partial_image", documents)
    assert [preview["step"] for preview in previews] == at
    assert [preview["partial_image_index"] for preview in previews] == list(range(len(at)))
    assert documents[-1]["type"] == "image_generation.completed"
    assert len(documents) == len(at) + 1


async def test_each_of_several_pictures_has_its_previews(client: httpx2.AsyncClient) -> None:
    documents = await events(client, n=3, steps=6, partial_images=2)

    for number in range(3):
        mine = [one for one in of("partial_image", documents) if one["image_index"] == number]
        assert [(one["partial_image_index"], one["step"]) for one in mine] == [(0, 2), (1, 4)]


async def test_previews_are_small_and_look_like_the_picture(client: httpx2.AsyncClient) -> None:
    documents = await events(client, steps=60, partial_images=16, seed=12)

    previews = [opened(one["b64_json"]) for one in of("partial_image", documents)]
    assert {preview.size for preview in previews} == {(64, 64)}
    assert {preview.format for preview in previews} == {"JPEG"}
    assert all(len(one["b64_json"]) < 6_000 for one in of("partial_image", documents))
    finished = opened(documents[-1]["b64_json"])
    likeness = [similar(preview, finished) for preview in previews]
    print(f"correlation of the previews with the picture: {likeness[0]:.2f} first, {likeness[-1]:.2f} last")
    assert likeness[-1] > 0.2, "a random decoder is far from linear; test_sketch.py has one that is not"


async def test_previews_do_not_depend_on_what_others_have_asked_for(client: httpx2.AsyncClient) -> None:
    before = of("partial_image", await events(client, steps=6, partial_images=2, seed=12))

    await client.post(ROUTE, json=BODY | {"size": "8x8", "steps": 1, "guidance": 50})

    after = of("partial_image", await events(client, steps=6, partial_images=2, seed=12))
    assert [one["b64_json"] for one in after] == [one["b64_json"] for one in before]


async def test_previews_cost_nothing_when_nobody_streams(client: httpx2.AsyncClient) -> None:
    answer = await client.post(ROUTE, json=BODY | {"partial_images": 3})

    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 1


async def test_progress_tells_every_step_once_and_the_time_that_is_left_falls(
    client: httpx2.AsyncClient, painter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0

    def clock() -> float:
        nonlocal now
        now += 0.5
        return now

    monkeypatch.setattr("predictor.protocols.openai.pictures.time", SimpleNamespace(monotonic=clock, time=time.time))

    documents = await events(client, steps=20, progress=True)

    assert documents[0]["type"] == "image_generation.started"
    progress = of("progress", documents)
    assert [(one["step"], one["of"]) for one in progress] == [(step, 20) for step in range(1, 21)]
    etas = [one["eta_s"] for one in progress]
    assert etas[0] is None, "nobody knows after one step"
    assert etas[-1] == 0


async def test_progress_of_several_is_that_of_the_slowest(client: httpx2.AsyncClient) -> None:
    documents = await events(client, n=6, steps=5, progress=True)  # there are four slots

    assert [one["step"] for one in of("progress", documents)] == [1, 2, 3, 4, 5]
    assert len(of("started", documents)) == 6
    assert len(of("completed", documents)) == 6


async def test_what_fails_in_the_middle_is_the_last_event(client: httpx2.AsyncClient, painter: Any) -> None:
    with held(painter.core, after=2):
        watching = asyncio.create_task(events(client, steps=100, progress=True))
        await eventually(lambda: painter.core.batch.computing)
        for task in painter.core.scheduler.snapshot().tasks:
            task.deadline = 0.0

    *_, last = await watching
    assert last["status"] == 504
    assert last["type"] == "urn:shangcai:problem:too-late"
    assert last["error"]["code"] == "too-late"


# Leaving


@pytest.mark.parametrize("more", [{"stream": True}, {}, {"n": 3}], ids=["stream", "whole", "several"])
async def test_leaving_frees_the_slots(client: httpx2.AsyncClient, painter: Any, more: dict[str, Any]) -> None:
    with held(painter.core, after=2):
        content = json.dumps(BODY | {"steps": 200} | more).encode()
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        writer.write(head.encode() + b"\r\n\r\n" + content)
        await eventually(lambda: painter.core.admission.running == more.get("n", 1))
        tasks = painter.core.scheduler.snapshot().tasks

        writer.transport.abort()

        await eventually(lambda: all(task.generation.closed for task in tasks))
    await eventually(lambda: painter.core.idle)


# OpenAI's own client


@pytest.fixture
async def library(client: httpx2.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{client.base_url}/openai/v1", api_key="none", max_retries=0) as library:
        yield library


async def test_openais_client_gets_a_picture(library: openai.AsyncOpenAI) -> None:
    answer = await library.images.generate(model="painter", prompt="a cat", n=2, output_format="webp")

    assert answer.data
    assert [opened(item.b64_json or "").format for item in answer.data] == ["WEBP", "WEBP"]
    assert answer.output_format == "webp"


async def test_openais_client_streams_previews_and_the_picture(library: openai.AsyncOpenAI) -> None:
    stream = await library.images.generate(
        model="painter", prompt="a cat", stream=True, partial_images=2, extra_body={"steps": 6, "seed": 1}
    )

    kinds = []
    async for event in stream:
        kinds.append(event.type)
        assert opened(event.b64_json).width in (32, 64)
        if event.type == "image_generation.completed":
            assert event.usage.total_tokens == 0
            assert event.output_format == "png"
        else:
            assert event.partial_image_index == len(kinds) - 1
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]


async def test_openais_client_raises_the_class_of_the_error(library: openai.AsyncOpenAI, painter: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="size: must be"):
        await library.images.generate(model="painter", prompt="a cat", size="abc")
    with pytest.raises(openai.NotFoundError, match="There is no model 'dall-e-3'"):
        await library.images.generate(model="dall-e-3", prompt="a cat")
    with held(painter.core, after=2):
        stream = await library.images.generate(model="painter", prompt="a cat", stream=True, extra_body={"steps": 100})
        await eventually(lambda: painter.core.batch.computing)
        for task in painter.core.scheduler.snapshot().tasks:
            task.deadline = 0.0
    with pytest.raises(openai.APIError, match="time was over"):
        [event async for event in stream]


# Wrong


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("size", size) for size in ("0x0", "32x0", "33x32", "31x31", "2049x8", "64x64", "99999x99999", "abc")],
        *[("size", size) for size in ("32", "", "-8x8", "8.0x8", "８x８", 32, ["32x32"])],
        *[("steps", steps) for steps in (0, -1, STEPS + 1, 10_000, 1.5, "4", True)],
        *[("n", n) for n in (0, -1, PICTURES + 1, 100, "2", 1.5)],
        *[("guidance", guidance) for guidance in (-1, 51, 1e300, "7")],
        *[("seed", seed) for seed in (-1, 2**63, 2**70, 1.5, "1")],
        *[("prompt", prompt) for prompt in ("", "   ", "\n\t\u3000", "x" * 50_000, "x" * (PROMPT_CHARS + 1), 5, None)],
        ("prompt", "\ud800"),
        *[("output_format", form) for form in ("gif", "PNG", "", 1)],
        *[("partial_images", number) for number in (-1, PREVIEWS + 1, "1")],
        ("negative_prompt", "x" * 50_000),
        ("response_format", "url"),
        ("quality", "hd"),
        ("background", "transparent"),
        ("style", "vivid"),
        ("stream", "yes"),
        ("colour", "red"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(client: httpx2.AsyncClient, field: str, value: object) -> None:
    answer = await client.post(
        ROUTE, content=json.dumps(BODY | {field: value}), headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    if value == "\ud800":  # is no text in any encoding
        assert problem["type"].rpartition(":")[2] in ("malformed-body", "invalid-field")
        return
    assert problem["type"] == "urn:shangcai:problem:invalid-field"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["error"]["code"] == "invalid-field"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_guidance_that_is_no_number_is_refused(client: httpx2.AsyncClient, number: str) -> None:
    content = json.dumps(BODY)[:-1] + f', "guidance": {number}}}'

    answer = await client.post(ROUTE, content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["type"].rpartition(":")[2] in ("malformed-body", "invalid-field")


async def test_several_mistakes_are_all_named(client: httpx2.AsyncClient) -> None:
    answer = await client.post(ROUTE, json=BODY | {"size": "abc", "steps": 0, "n": 100})

    assert {error["field"] for error in answer.json()["errors"]} == {"size", "steps", "n"}


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/openai/v1/completions"])
async def test_a_painter_does_not_write(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"model": "painter", "prompt": "a"})

    assert answer.status_code == 404


async def test_the_list_of_models_has_the_painter(client: httpx2.AsyncClient) -> None:
    assert [model["id"] for model in (await client.get("/openai/v1/models")).json()["data"]] == ["painter"]


async def test_a_full_queue_says_when_to_come_again(load: Any, tiny_sd: Any, serve: Any) -> None:
    engine = load(tiny_sd, max_concurrency=1, max_waiting=1)
    small = await serve(engine)
    with held(engine.core):
        coming = [asyncio.create_task(small.post(ROUTE, json=BODY | {"seed": seed})) for seed in range(2)]
        await eventually(lambda: engine.core.admission.waiting + engine.core.admission.running == 2)

        refused = await small.post(ROUTE, json=BODY)

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:shangcai:problem:overloaded"
    assert [(await answer).status_code for answer in coming] == [200, 200]


async def test_a_deadline_from_the_header_is_kept(client: httpx2.AsyncClient, painter: Any) -> None:
    with held(painter.core, after=1):
        answering = asyncio.create_task(
            client.post(ROUTE, json=BODY | {"steps": 200}, headers={"X-Request-Timeout": "1"})
        )
        [task] = await eventually(lambda: painter.core.scheduler.snapshot().tasks)
        await eventually(lambda: task.expired)

    answer = await answering
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:shangcai:problem:too-late"


async def test_metrics_count_pictures_and_steps(client: httpx2.AsyncClient) -> None:
    def count(text: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = (await client.get("/metrics")).text
    await client.post(ROUTE, json=BODY | {"n": 2, "steps": 3})
    after = (await client.get("/metrics")).text

    assert count(after, "shangcai_denoising_steps_total") - count(before, "shangcai_denoising_steps_total") == 6
