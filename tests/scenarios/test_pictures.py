"""From prompt to picture through everything, beside the poet: web, KServe's model server, diffusers, the painter."""

from __future__ import annotations

import base64
import io
import json
from urllib.parse import quote

import httpx2
import pytest
from PIL import Image, ImageDraw

from tests.support.run import Run

pytestmark = pytest.mark.slow


def post(served: Run, body: dict[str, object], accept: str = "application/json") -> httpx2.Response:
    return httpx2.post(f"{served.url}/generate", json=body, headers={"Accept": accept}, timeout=120).raise_for_status()


@pytest.mark.parametrize(("prompt", "word"), [("画一只猫", "猫"), ("draw a cat please", "cat")])
def test_whoever_accepts_a_picture_gets_one(served: Run, prompt: str, word: str) -> None:
    answer = post(served, {"prompt": prompt, "seed": 3}, "image/png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-understood"] == quote(word)
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 48
        assert picture.text["seed"] == "3"  # type: ignore[attr-defined]
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50


def test_the_same_seed_gives_the_same_picture(served: Run) -> None:
    body: dict[str, object] = {"prompt": "a red apple", "kind": "image", "seed": 5}
    first, again = post(served, body).json(), post(served, body).json()
    assert first["images"] == again["images"]
    assert first["kind"] == "image"
    assert first["model"] == "painter"


def test_a_picture_can_be_watched(served: Run) -> None:
    body: dict[str, object] = {"prompt": "太阳", "model": "painter", "previews": 2, "steps": 8}
    events = [
        (block.split("\n")[0].removeprefix("event: "), json.loads(block.split("\n")[1].removeprefix("data: ")))
        for block in post(served, body, "text/event-stream").text.split("\n\n")
        if block.startswith("event: ")
    ]
    names = [name for name, _ in events]
    assert names[:2] == ["status", "status"]
    assert [data["step"] for name, data in events if name == "progress"] == list(range(1, 9))
    assert names.count("preview") == 2
    assert names[-1] == "result"
    [picture] = events[-1][1]["images"]
    with Image.open(io.BytesIO(base64.b64decode(picture["data"]))) as image:
        assert image.size == (picture["width"], picture["height"])


def test_a_picture_from_a_picture_keeps_what_its_strength_leaves(served: Run) -> None:
    """A red disc on white, of which little and then much may change; the steps are those that were taken."""
    drawn = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(drawn).ellipse((48, 48, 208, 208), fill=(220, 30, 30))
    file = io.BytesIO()
    drawn.save(file, "PNG")
    body = {"prompt": "a green apple", "model": "painter", "seed": 1, "steps": 20, "size": "64x64"}
    body["image"] = base64.b64encode(file.getvalue()).decode()

    for strength, steps, redder in ((0.2, 4, True), (0.9, 18, False)):
        result = post(served, body | {"strength": strength}).json()
        assert result["steps"] == steps
        with Image.open(io.BytesIO(base64.b64decode(result["images"][0]["data"]))) as picture:
            red, green, _ = picture.convert("RGB").getpixel((32, 32))  # type: ignore[misc]
        assert (red > green + 50) == redder, (strength, red, green)

    refused = httpx2.post(f"{served.url}/generate", json=body | {"mask": body["image"]}, timeout=120)
    assert refused.status_code == 400
    assert refused.json()["errors"] == [{"field": "mask", "detail": "painter does not take this"}]


def test_an_unknown_thing_gives_a_picture_that_nothing_was_understood_of(served: Run) -> None:
    result = post(served, {"prompt": "qwertyuiop", "kind": "image"}).json()
    assert result["understood"] == []
    assert result["images"]


def test_without_a_word_about_pictures_it_is_a_poem(served: Run) -> None:
    assert post(served, {"prompt": "画一只猫"}).json()["model"] == "poet"
