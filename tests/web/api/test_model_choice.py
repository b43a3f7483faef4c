"""Which model makes what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]

PAINTERS_FIRST = {
    "sketcher": {"url": "http://sketcher.test", "kind": "image"},
    "poet": {"url": "http://poet.test"},
}
POET_ONLY = {"poet": "http://poet.test"}
PAINTER_ONLY = {"painter": {"url": "http://painter.test", "kind": "image"}}


@pytest.mark.parametrize(
    ("fields", "accept", "model"),
    [
        ({}, "*/*", "poet"),
        ({"kind": "text"}, "*/*", "poet"),
        ({"kind": "image"}, "*/*", "painter"),
        ({"kind": "image"}, "application/json", "painter"),
        ({}, "image/png", "painter"),
        ({}, "image/*, */*;q=0.1", "painter"),
        ({}, "multipart/mixed", "painter"),
        ({}, "application/json, image/png", "poet"),
        ({"kind": "text"}, "image/png, */*;q=0.1", "poet"),
        ({"model": "novelist"}, "image/png, */*;q=0.1", "novelist"),
        ({"model": "painter"}, "*/*", "painter"),
        ({"model": "painter", "kind": "image"}, "*/*", "painter"),
    ],
)
async def test_which_model_is_asked(
    web: Web, seen: list[httpx2.Request], fields: dict[str, str], accept: str, model: str
) -> None:
    response = await web().post("/generate", json={"prompt": "x", **fields}, headers={"Accept": accept})
    assert response.status_code == 200
    assert seen[0].url.host == f"{model}.test"


@pytest.mark.parametrize(("fields", "host"), [({}, "sketcher.test"), ({"kind": "text"}, "poet.test")])
async def test_the_first_model_of_a_kind_is_the_default_of_that_kind(
    web: Web, seen: list[httpx2.Request], fields: dict[str, str], host: str
) -> None:
    await web(lambda _: httpx2.Response(500), models=PAINTERS_FIRST).post("/generate", json={"prompt": "x", **fields})
    assert seen[0].url.host == host


async def test_accept_only_prefers_a_picture(web: Web, slug: Slug) -> None:
    client = web(models=POET_ONLY)
    response = await client.post("/generate", json={"prompt": "x"}, headers={"Accept": "image/png, */*;q=0.1"})
    assert response.json()["kind"] == "text"
    response = await client.post("/generate", json={"prompt": "x"}, headers={"Accept": "image/png"})
    assert (response.status_code, slug(response)) == (406, "not-acceptable")
    assert response.json()["detail"] == "A text is served as application/json or text/event-stream."


@pytest.mark.parametrize(
    ("models", "fields", "detail"),
    [
        (POET_ONLY, {"kind": "image"}, "kind: must be text: no model served here makes pictures"),
        (PAINTER_ONLY, {"kind": "text"}, "kind: must be image: no model served here writes texts"),
        (
            PAINTERS_FIRST,
            {"kind": "image", "model": "poet"},
            "kind: must be text or left out: the model poet writes texts",
        ),
        (
            PAINTERS_FIRST,
            {"kind": "text", "model": "sketcher"},
            "kind: must be image or left out: the model sketcher makes pictures",
        ),
        (
            POET_ONLY,
            {"size": "64x64", "n": 1},
            "size: the model poet writes texts and does not take this; "
            "n: the model poet writes texts and does not take this",
        ),
        (POET_ONLY, {"previews": 0}, "previews: the model poet writes texts and does not take this"),
        (
            PAINTER_ONLY,
            {"max_tokens": 5, "stop": "x"},
            "max_tokens: the model painter makes pictures and does not take this; "
            "stop: the model painter makes pictures and does not take this",
        ),
    ],
)
async def test_a_request_that_fits_no_model_is_refused(
    web: Web, seen: list[httpx2.Request], slug: Slug, models: dict[str, Any], fields: dict[str, Any], detail: str
) -> None:
    response = await web(models=models).post("/generate", json={"prompt": "x", **fields})
    assert (response.status_code, slug(response)) == (400, "invalid-field")
    assert response.json()["detail"] == detail
    assert seen == []


async def test_a_field_of_the_other_kind_that_is_null_is_left_out(web: Web) -> None:
    response = await web().post("/generate", json={"prompt": "x", "size": None})
    assert response.status_code == 200


@pytest.mark.parametrize("accept", ["image/gif", "image/jpg, image/avif"])
async def test_other_picture_formats_are_refused_with_the_ones_there_are(web: Web, slug: Slug, accept: str) -> None:
    response = await web().post("/generate", json={"prompt": "x", "size": "64x64"}, headers={"Accept": accept})
    assert slug(response) == "not-acceptable"
    assert "image/png" in response.json()["detail"]
