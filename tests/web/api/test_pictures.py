"""Pictures of POST /generate: what is forwarded to get them, and every form in which they are answered."""

from __future__ import annotations

import base64
import email
import hashlib
import json
from collections.abc import Callable
from email.policy import HTTP
from typing import Any

import httpx2
import pytest

from contract import PictureResult
from web.http.responses import UNDERSTOOD_CHARS

Web = Callable[..., httpx2.AsyncClient]
Answer = Callable[..., httpx2.Response]
Made = Callable[..., dict[str, Any]]
PictureStream = Callable[..., bytes]
Events = Callable[[str], list[tuple[str, Any]]]

PICTURE = {"prompt": "画一只猫", "kind": "image"}
SEEDED = {**PICTURE, "seed": 7}
FOREIGN = {"seed": None, "steps": None, "understood": None, "image_index": None}  # what other runtimes leave out


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def test_a_prompt_becomes_a_picture(web: Web) -> None:
    response = await web().post("/generate", json=SEEDED)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    result = PictureResult.model_validate_json(response.content)
    assert len(result.id) == 32
    assert result.timing.queue_s == 0.25
    assert result.timing.total_s > 0
    assert result.model_dump(exclude={"id", "timing"}) == {
        "model": "painter",
        "kind": "image",
        "images": [
            {"data": encoded(b"picture 0"), "media_type": "image/png", "seed": 7, "width": 64, "height": 48},
        ],
        "steps": 20,
        "understood": ["cat"],
    }


async def test_only_what_was_given_is_forwarded(web: Web, seen: list[httpx2.Request]) -> None:
    await web().post("/generate", json=PICTURE)
    [request] = seen
    assert (request.method, str(request.url)) == ("POST", "http://painter.test/openai/v1/images/generations")
    body = json.loads(request.content)
    assert 0 <= body.pop("seed") < 2**32  # drawn here: see web.rest.resumption
    assert body == {"model": "painter", "prompt": "画一只猫", "stream": True, "progress": True}


@pytest.mark.parametrize(
    ("given", "accept", "forwarded"),
    [
        ({"negative_prompt": ""}, "*/*", {"negative_prompt": ""}),
        ({"size": "64x48"}, "*/*", {"size": "64x48"}),
        ({"steps": 5}, "*/*", {"steps": 5}),
        ({"guidance": 0}, "*/*", {"guidance": 0}),
        ({"n": 3, "seed": 0}, "*/*", {"n": 3, "seed": 0}),
        ({"format": "webp"}, "*/*", {"output_format": "webp"}),
        ({}, "image/jpeg", {"output_format": "jpeg"}),
        ({}, "image/*", {"output_format": "png"}),
        ({"format": "webp"}, "image/*", {"output_format": "webp"}),
        ({"previews": 4}, "text/event-stream", {"partial_images": 4}),
        ({"previews": 4, "stream": True}, "*/*", {"partial_images": 4}),
        ({"previews": 4}, "*/*", {}),  # nobody would see them
    ],
)
async def test_picture_fields_are_forwarded(
    web: Web, seen: list[httpx2.Request], given: dict[str, Any], accept: str, forwarded: dict[str, Any]
) -> None:
    response = await web().post("/generate", json={**PICTURE, **given}, headers={"Accept": accept})
    assert response.status_code == 200
    body = json.loads(seen[0].content)
    fixed = {"model", "prompt", "stream", "progress"} | {"seed"} - given.keys()
    assert {name: value for name, value in body.items() if name not in fixed} == forwarded


async def test_several_pictures_are_in_the_order_of_their_seeds(web: Web) -> None:
    images = (await web().post("/generate", json={**PICTURE, "n": 3, "seed": 5})).json()["images"]
    assert [(image["data"], image["seed"]) for image in images] == [
        (encoded(b"picture %d" % index), 5 + index) for index in range(3)
    ]


async def test_events_come_in_order_and_end_with_the_result(web: Web, events: Events) -> None:
    response = await web().post("/generate", json={**PICTURE, "stream": True, "previews": 1})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    file = {"data": encoded(b"a preview"), "media_type": "image/jpeg", "width": 32, "height": 24}
    preview = {"image": 0, "step": 1, **file}
    assert found[:-1] == [
        ("status", {"state": "queued"}),
        ("status", {"state": "running"}),
        ("progress", {"step": 1, "of": 2, "eta_s": 0.5}),
        ("preview", preview),
        ("progress", {"step": 2, "of": 2, "eta_s": 0.0}),
    ]
    name, result = found[-1]
    assert name == "result"
    assert PictureResult.model_validate(result).images[0].data == encoded(b"picture 0")


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_a_picture_may_be_answered_as_its_file(web: Web, form: str) -> None:
    response = await web().post("/generate", json=SEEDED, headers={"Accept": f"image/{form}"})
    assert response.content == b"picture 0"
    del response.headers["x-request-id"]
    assert dict(response.headers) == {
        "content-type": f"image/{form}",
        "content-length": "9",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        "etag": f'"{hashlib.sha256(b"picture 0").hexdigest()[:32]}"',
        "content-disposition": f'inline; filename="painter-7.{form}"',
        "x-model": "painter",
        "x-seed": "7",
        "x-steps": "20",
        "x-understood": "cat",
    }


async def test_several_files_are_one_multipart_answer(web: Web) -> None:
    request = {**SEEDED, "n": 2, "format": "webp"}
    response = await web().post("/generate", json=request, headers={"Accept": "multipart/mixed"})
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-length"] == str(len(response.content))
    assert (response.headers["x-model"], response.headers["x-steps"]) == ("painter", "20")
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    parts = list(email.message_from_bytes(head + response.content, policy=HTTP).iter_parts())
    assert [(part.get_payload(decode=True), dict(part.items())) for part in parts] == [
        (
            b"picture %d" % index,
            {
                "Content-Type": "image/webp",
                "Content-Length": "9",
                "Content-Disposition": f'inline; filename="painter-{7 + index}.webp"',
                "X-Seed": str(7 + index),
            },
        )
        for index in range(2)
    ]


async def test_names_and_words_in_any_script_fit_into_headers(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream
) -> None:
    models = {'画"师/\r\n': {"url": "http://painter.test", "kind": "image"}}
    stream = picture_stream(picture(understood=["猫", "a,b"]))
    response = await web(lambda _: sse_answer(stream), models=models).post(
        "/generate", json=PICTURE, headers={"Accept": "image/png"}
    )
    assert response.headers["x-model"] == "%E7%94%BB%22%E5%B8%88/%0D%0A"
    assert response.headers["x-understood"] == "%E7%8C%AB,a%2Cb"
    assert response.headers["content-disposition"] == 'inline; filename="_-7.png"'


@pytest.mark.parametrize(
    ("words", "header"),
    [
        ([], ""),
        (["x" * UNDERSTOOD_CHARS], "x" * UNDERSTOOD_CHARS),
        (["ab", "x" * UNDERSTOOD_CHARS], "ab"),
        (["x" * (UNDERSTOOD_CHARS + 1)], ""),
    ],
)
async def test_the_words_in_a_header_are_whole_and_have_a_limit(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream, words: list[str], header: str
) -> None:
    stream = picture_stream(picture(understood=words))
    response = await web(lambda _: sse_answer(stream)).post("/generate", json=PICTURE, headers={"Accept": "image/png"})
    assert response.headers["x-understood"] == header


async def test_what_another_runtime_leaves_out_is_null_or_absent(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream
) -> None:
    client = web(lambda _: sse_answer(picture_stream(picture(**FOREIGN)) + b"data: [DONE]\n\n"))
    result = (await client.post("/generate", json=PICTURE)).json()
    assert (result["images"][0]["seed"], result["steps"], result["understood"]) == (None, None, None)
    assert result["timing"]["queue_s"] is None
    headers = (await client.post("/generate", json=PICTURE, headers={"Accept": "image/png"})).headers
    assert not {"x-seed", "x-steps", "x-understood"} & headers.keys()


@pytest.mark.parametrize(("count", "seeds"), [(1, [5]), (2, [None, None])])
async def test_the_seed_asked_for_is_that_of_a_single_picture_only(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream, count: int, seeds: list[int | None]
) -> None:
    """How another runtime counts on for several is not known."""
    stream = picture_stream(*(picture(b"picture %d" % index, **FOREIGN) for index in range(count)))
    response = await web(lambda _: sse_answer(stream)).post("/generate", json={**PICTURE, "seed": 5, "n": count})
    images = response.json()["images"]
    assert [image["seed"] for image in images] == seeds
    assert [image["data"] for image in images] == [encoded(b"picture %d" % index) for index in range(count)]


async def test_previews_of_another_runtime(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream, events: Events
) -> None:
    preview = {**picture(b"small", **FOREIGN), "type": "image_generation.partial_image", "partial_image_index": 0}
    stream = picture_stream(preview, picture(**FOREIGN))
    response = await web(lambda _: sse_answer(stream)).post("/generate", json={**PICTURE, "stream": True})
    found = events(response.text)
    assert [name for name, _ in found] == ["status", "status", "preview", "result"]
    size = {"width": 64, "height": 48}  # as it says
    assert found[2][1] == {"image": 0, "step": None, "data": encoded(b"small"), "media_type": "image/png", **size}


async def test_the_queue_time_is_that_of_the_longest_wait(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream
) -> None:
    started = [{"type": "image_generation.started", "queue_s": seconds} for seconds in (0.5, 2.0, None, 1.0)]
    stream = picture_stream(*started, picture())
    response = await web(lambda _: sse_answer(stream)).post("/generate", json=PICTURE)
    assert response.json()["timing"]["queue_s"] == 2.0


async def test_a_large_picture_in_small_parts(
    web: Web, sse_answer: Answer, picture: Made, picture_stream: PictureStream
) -> None:
    content = bytes(range(256)) * 12_000  # three million bytes, more than an event of a text may have
    stream = picture_stream(picture(content))
    parts = [stream[at : at + 65_536] for at in range(0, len(stream), 65_536)]
    response = await web(lambda _: sse_answer(*parts)).post("/generate", json=PICTURE, headers={"Accept": "image/png"})
    assert response.content == content
