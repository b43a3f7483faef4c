"""Which model makes what is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.web.job_requests import ended, submit
from web.app import create_app
from web.jobs import worker
from web.settings import Settings

Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]
Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]

PAINTERS_FIRST = {
    "sketcher": {"url": "http://sketcher.test", "kind": "image"},
    "poet": {"url": "http://poet.test"},
}
MATCHED = {
    "poet": {"url": "http://poet.test", "match": r"\p{Han}|\bpoems?\b"},
    "novelist": {"url": "http://novelist.test"},
    "dramatist": {"url": "http://dramatist.test", "match": r"\bplay\b"},
    "painter": {"url": "http://painter.test", "kind": "image", "match": "oil"},
    "sketcher": {"url": "http://sketcher.test", "kind": "image"},
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


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"prompt": "a POEM"}, "poet"),
        ({"prompt": "写一首诗"}, "poet"),
        ({"prompt": "poems, raw", "raw": True, "max_tokens": 9}, "poet"),
        ({"prompt": "a story"}, "novelist"),
        ({"prompt": "a play"}, "dramatist"),
        ({"prompt": "a play about a poem"}, "poet"),  # the first, in their order
        ({"prompt": "a poem", "model": "novelist"}, "novelist"),
        ({"prompt": "a poem", "model": None, "kind": None}, "poet"),
        ({"prompt": "a poem", "kind": "text"}, "poet"),
        ({"prompt": "a poem in oil", "kind": "image"}, "painter"),
        ({"prompt": "a poem", "kind": "image"}, "sketcher"),
        ({"prompt": "a picture in oil"}, "novelist"),  # it never decides which kind
        ({"messages": [said("user", "a story")], "system": "You write poems."}, "novelist"),
        ({"messages": [said("user", "a poem"), said("assistant", "Roses"), said("user", "Why?")]}, "novelist"),
        ({"messages": [said("user", "Hello"), said("user", "a poem"), said("assistant", "Ro")]}, "poet"),
        ({"messages": [said("user", [{"type": "text", "text": "a p"}, {"type": "text", "text": "oem"}])]}, "poet"),
        ({"messages": [said("system", "poems only")]}, "novelist"),
        ({"prompt": "x" * 1995 + " poem"}, "poet"),
        ({"prompt": "x" * 1996 + " poem"}, "novelist"),
    ],
)
async def test_the_prompt_decides_where_no_model_is_named(
    web: Web, seen: list[httpx2.Request], fields: dict[str, Any], model: str
) -> None:
    await web(lambda _: httpx2.Response(500), models=MATCHED).post("/generate", json=fields)
    assert seen[0].url.host == f"{model}.test"


@pytest.mark.parametrize(("prompt", "model"), [("a picture in oil", "painter"), ("a poem", "sketcher")])
async def test_the_prompt_decides_within_the_kind_that_accept_prefers(
    web: Web, seen: list[httpx2.Request], prompt: str, model: str
) -> None:
    client = web(lambda _: httpx2.Response(500), models=MATCHED)
    await client.post("/generate", json={"prompt": prompt}, headers={"Accept": "image/png"})
    assert seen[0].url.host == f"{model}.test"


@pytest.mark.parametrize(
    ("matches", "model"),
    [(["poem", "play"], "a"), (["play", "stor"], "b"), (["poem"], "a"), ([None, None], "a"), (["(x+)+y", None], "b")],
)
async def test_one_answers_whatever_is_found(
    web: Web, seen: list[httpx2.Request], matches: list[str | None], model: str
) -> None:
    models = {name: {"url": f"http://{name}.test", "match": match} for name, match in zip("ab", matches, strict=False)}
    await web(lambda _: httpx2.Response(500), models=models).post("/generate", json={"prompt": f"a story {'x' * 99}"})
    assert seen[0].url.host == f"{model}.test"


async def test_fields_of_the_other_kind_are_refused_by_the_chosen_model(web: Web, slug: Slug) -> None:
    response = await web(models=MATCHED).post("/generate", json={"prompt": "a poem", "size": "64x64"})
    assert slug(response) == "invalid-field"
    assert response.json()["detail"] == "size: the model poet writes texts and does not take this"


@pytest.mark.parametrize(("prompt", "model"), [("a poem", "poet"), ("a story", "novelist")])
async def test_every_answer_says_who_has_been_chosen(
    opened: Opened,
    stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    events: Callable[[str], list[tuple[str, Any]]],
    prompt: str,
    model: str,
) -> None:
    settings = Settings(models=MATCHED)
    client = await opened(create_app(settings, httpx2.MockTransport(lambda _: sse_answer(stream("春", "天")))))
    request = {"prompt": prompt}
    assert (await client.post("/generate", json=request)).json()["model"] == model
    name, last = events((await client.post("/generate", json={**request, "stream": True})).text)[-1]
    assert (name, last["model"]) == ("result", model)
    keyed = {"Idempotency-Key": "k"}
    assert (await client.post("/generate", json=request, headers=keyed)).json()["model"] == model
    assert (await client.post("/generate", json=request, headers=keyed)).json()["model"] == model
    document = await ended(client, await submit(client, request))
    assert document["model"] == document["result"]["model"] == model


async def test_a_job_stays_with_the_model_that_it_was_accepted_for(
    opened: Opened,
    stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever claims it, with whatever expressions, and however often it is tried."""
    monkeypatch.setattr(worker, "FIRST_RETRY_SECONDS", 0.005)
    asked: list[httpx2.Request] = []

    def upstream(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200)
        asked.append(request)
        return httpx2.Response(502) if len(asked) == 1 else sse_answer(stream("春", "天"))

    others = {name: {**entry, "match": None} for name, entry in reversed(MATCHED.items())}
    first, second = [
        await opened(create_app(Settings(models=models, store_url=redis_url), httpx2.MockTransport(upstream)))
        for models in (MATCHED, others)
    ]
    document = await ended(second, await submit(first, {"prompt": "a poem"}))
    assert (document["state"], document["result"]["model"]) == ("completed", "poet")
    assert [request.url.host for request in asked] == ["poet.test"] * 2


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
