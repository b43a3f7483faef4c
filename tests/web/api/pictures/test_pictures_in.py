"""Pictures that are sent in with POST /generate: what the model server is asked, and what is refused before."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from contract.limits import IMAGE_BYTES
from tests.support.web.job_requests import Front, ended, submit

Handler = Callable[[httpx2.Request], httpx2.Response]
Web = Callable[..., httpx2.AsyncClient]
Events = Callable[[str], list[tuple[str, Any]]]
Made = Callable[..., dict[str, Any]]
PictureStream = Callable[..., bytes]

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 40).decode()
BODY = {"prompt": "a cat", "kind": "image", "seed": 7, "image": PNG}


def asked(seen: list[httpx2.Request]) -> tuple[str, dict[str, Any]]:
    [request] = [one for one in seen if one.method == "POST"]
    return request.url.path, json.loads(request.content)


async def test_it_goes_to_the_route_for_edits(web: Web, seen: list[httpx2.Request]) -> None:
    response = await web().post("/generate", json={**BODY, "mask": PNG, "strength": 0.5, "size": "64x48"})
    assert response.status_code == 200
    path, body = asked(seen)
    assert path == "/openai/v1/images/edits"
    assert body == {
        "model": "painter",
        "prompt": "a cat",
        "stream": True,
        "progress": True,
        "seed": 7,
        "size": "64x48",
        "image": PNG,
        "mask": PNG,
        "strength": 0.5,
    }


async def test_what_is_left_out_is_not_sent(web: Web, seen: list[httpx2.Request]) -> None:
    await web().post("/generate", json={**BODY, "mask": None, "strength": None})
    _, body = asked(seen)
    assert {"mask", "strength"} & body.keys() == set()


@pytest.mark.parametrize(
    ("fields", "named", "detail"),
    [
        ({"image": "x"}, "image", "PNG, JPEG or WebP"),
        ({"image": None, "mask": PNG}, "mask", "beside image only"),
        ({"image": None, "strength": 0.5}, "strength", "beside image only"),
        ({"strength": 2}, "strength", "less than or equal to 1"),
        ({"kind": "text"}, "image", "writes texts and does not take this"),
        ({"image": "/9j/" + "A" * (IMAGE_BYTES // 3 * 4)}, "image", f"at most {IMAGE_BYTES} bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_wrong_is_refused_by_name_and_wakes_no_model(
    web: Web, seen: list[httpx2.Request], fields: dict[str, Any], named: str, detail: str
) -> None:
    response = await web().post("/generate", json={**BODY, **fields} | ({"seed": None} if "kind" in fields else {}))
    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert (error["field"], detail in error["detail"]) == (named, True)
    assert seen == []


async def test_the_largest_pictures_fit_into_a_body_and_no_more(web: Web) -> None:
    largest = "data:image/webp;base64,UklG" + "A" * (IMAGE_BYTES // 3 * 4 - 4)
    whole = {**BODY, "image": largest, "mask": largest, "prompt": "雨" * 32_000}
    client = web()
    assert (await client.post("/generate", json=whole)).status_code == 200
    assert (await client.post("/generate", json={**whole, "prompt": "x" * 2_000_000})).status_code == 413
    assert (await client.post("/warm", json={**whole})).status_code == 413
    only_texts = web(models={"poet": "http://poet.test"})
    assert (await only_texts.post("/generate", json=whole)).status_code == 413


async def test_the_events_of_an_edit_are_read(
    web: Web, sse_answer: Any, events: Events, picture: Made, picture_stream: PictureStream
) -> None:
    kinds = ("started", "progress", "partial_image", "completed")
    story = [{**picture(b"a cat"), "step": 1, "of": 1, "type": f"image_edit.{kind}"} for kind in kinds]
    response = await web(lambda _: sse_answer(picture_stream(*story))).post("/generate", json={**BODY, "stream": True})
    names = [name for name, _ in events(response.text)]
    assert names == ["status", "status", "progress", "preview", "result"]


@pytest.fixture
def painter(painter: Handler, painted: list[httpx2.Request]) -> Handler:
    """The model server, whose requests are kept."""

    def paint(request: httpx2.Request) -> httpx2.Response:
        painted.append(request)
        return painter(request)

    return paint


@pytest.fixture
def painted() -> list[httpx2.Request]:
    return []


async def test_a_job_keeps_its_picture_until_it_has_ended(front: Front, painted: list[httpx2.Request]) -> None:
    client = await front()
    job = await submit(client, BODY)
    assert (await ended(client, job))["state"] == "completed"
    [request] = painted
    assert request.url.path == "/openai/v1/images/edits"
    assert json.loads(request.content)["image"] == PNG
