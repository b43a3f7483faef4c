"""Pictures whose model server dies are asked for again; a stream tells no step and no preview twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from contract import problems

Web = Callable[..., httpx2.AsyncClient]
Made = Callable[..., dict[str, Any]]
PictureStream = Callable[..., bytes]
Events = Callable[[str], list[tuple[str, Any]]]
Dying = Callable[..., Any]

RESET = httpx2.ReadError("reset")
BODY = {"prompt": "x", "model": "painter", "n": 2, "previews": 1}


@pytest.fixture
def story(picture: Made) -> Callable[..., list[dict[str, Any]]]:
    """The events of two pictures of three steps with a preview each."""

    def make(fingerprint: str | None = "fp_1", content: bytes = b"a picture") -> list[dict[str, Any]]:
        def preview(index: int) -> dict[str, Any]:
            made = picture(b"a preview", step=1, output_format="jpeg", image_index=index)
            return {**made, "type": "image_generation.partial_image"}

        progress = {"type": "image_generation.progress", "of": 3}
        found = [
            {"type": "image_generation.started", "queue_s": 0.25},
            preview(0),
            {**progress, "step": 1},
            preview(1),
            {**progress, "step": 2},
            picture(content, image_index=0),
            {**progress, "step": 3},
            picture(content, image_index=1),
        ]
        return [event if fingerprint is None else {**event, "system_fingerprint": fingerprint} for event in found]

    return make


@pytest.mark.parametrize("live", [False, True], ids=["JSON", "SSE"])
@pytest.mark.parametrize("told", range(8))
@pytest.mark.parametrize("torn", [0, 20], ids=["between frames", "within a frame"])
async def test_whenever_it_dies_the_pictures_are_whole(
    web: Web,
    dying: Dying,
    events: Events,
    story: Callable[..., list[dict[str, Any]]],
    picture_stream: PictureStream,
    live: bool,
    told: int,
    torn: int,
) -> None:
    whole, begun = picture_stream(*story()), picture_stream(*story()[:told])
    server = dying((whole[: len(begun) + torn], RESET), whole)
    response = await web(server).post("/generate", json={**BODY, "stream": live})
    assert len(server.asked) == 2
    assert server.asked[0].content == server.asked[1].content  # the seed, too
    if not live:
        assert len(response.json()["images"]) == 2
        return
    found = events(response.text)
    assert [data["step"] for name, data in found if name == "progress"] == [1, 2, 3]
    assert sorted(data["image"] for name, data in found if name == "preview") == [0, 1]
    assert found[-1][0] == "result"
    assert len(found[-1][1]["images"]) == 2


@pytest.mark.parametrize(
    ("first", "second", "kind"), [("fp_1", "fp_2", problems.DIVERGED), (None, "fp_1", problems.BAD_UPSTREAM)]
)
async def test_only_the_same_fingerprint_goes_on(
    web: Web,
    dying: Dying,
    events: Events,
    story: Callable[..., list[dict[str, Any]]],
    picture_stream: PictureStream,
    first: str | None,
    second: str,
    kind: problems.ProblemType,
) -> None:
    begun, whole = picture_stream(*story(first)[:3]), picture_stream(*story(second))
    found = events((await web(dying((begun, RESET), whole)).post("/generate", json={**BODY, "stream": True})).text)
    assert (found[-1][0], found[-1][1]["type"]) == ("error", kind.uri)


async def test_all_pictures_are_of_one_answer(
    web: Web, dying: Dying, story: Callable[..., list[dict[str, Any]]], picture_stream: PictureStream
) -> None:
    begun, whole = picture_stream(*story("fp_1", b"one")[:7]), picture_stream(*story("fp_2", b"other"))
    images = (await web(dying((begun, RESET), whole)).post("/generate", json=BODY)).json()["images"]
    assert {image["data"] for image in images} == {"b3RoZXI="}


async def test_of_a_picture_that_was_sent_in_it_is_asked_for_the_same_again(
    web: Web, dying: Dying, events: Events, story: Callable[..., list[dict[str, Any]]], picture_stream: PictureStream
) -> None:
    told = [{**event, "type": event["type"].replace("generation", "edit")} for event in story()]
    whole, begun = picture_stream(*told), picture_stream(*told[:4])
    server = dying((whole[: len(begun)], RESET), whole)
    body = {**BODY, "image": "iVBORw0K", "mask": "/9j/", "strength": 0.5, "stream": True}
    response = await web(server).post("/generate", json=body)
    found = events(response.text)
    assert [data["step"] for name, data in found if name == "progress"] == [1, 2, 3]
    assert found[-1][0] == "result"
    first, second = server.asked
    assert first.url.path == second.url.path == "/openai/v1/images/edits"
    assert first.content == second.content
    assert b'"image":"iVBORw0K"' in first.content
