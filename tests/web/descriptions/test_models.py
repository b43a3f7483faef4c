"""The list of models, and what is refused by it before a model is woken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]

STATED = {
    "summary": {"en": "Cats."},
    "refuses": ["guidance"],
    "limits": {"steps": 8, "size": {"multiple": 8, "pixels": 8192, "side": 128}},
    "defaults": {"size": "64x64", "steps": 4},
}
MODELS: dict[str, Any] = {
    "poet": {"url": "http://poet.test"},
    "painter": {"url": "http://painter.test", "kind": "image", "description": STATED},
}
PAINTER = STATED | {"limits": {"prompt_chars": 32768, **STATED["limits"]}}  # type: ignore[dict-item]


async def test_the_models_are_listed_in_their_order(web: Web) -> None:
    answer = await web(models=MODELS).get("/models")
    assert answer.json() == {
        "models": [
            {"name": "poet", "kind": "text", "limits": {"prompt_chars": 32768, "max_tokens": 4096}},
            {"name": "painter", "kind": "image", **PAINTER},
        ],
        "default_model": "poet",
    }
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_list_that_is_known_is_not_sent_again(web: Web) -> None:
    client = web(models=MODELS)
    tag = (await client.get("/models")).headers["etag"]
    assert (await client.get("/models", headers={"If-None-Match": tag})).status_code == 304


async def test_openai_clients_get_the_same(web: Web) -> None:
    card = (await web(models=MODELS).get("/v1/models/painter")).json()
    assert card.pop("created") > 0
    assert card == {"id": "painter", "object": "model", "owned_by": "shangcai", "kind": "image", **PAINTER}


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}, {"Accept": "text/event-stream"}])
@pytest.mark.parametrize(("field", "value"), [("size", "512x512"), ("steps", 9), ("guidance", 2.0)])
async def test_what_the_model_would_refuse_does_not_reach_it(
    web: Web, seen: list[httpx2.Request], slug: Slug, headers: dict[str, str], field: str, value: Any
) -> None:
    order = {"prompt": "a cat", "kind": "image", field: value}
    answer = await web(models=MODELS).post("/generate", json=order, headers=headers)
    assert (slug(answer), answer.json()["errors"][0]["field"], seen) == ("invalid-field", field, [])


async def test_openai_routes_refuse_it_too(web: Web, seen: list[httpx2.Request]) -> None:
    answer = await web(models=MODELS).post("/v1/images/generations", json={"prompt": "a", "size": "512x512"})
    assert (answer.status_code, answer.json()["error"]["param"], seen) == (400, "size", [])


@pytest.mark.parametrize("description", [{"limits": {"steps": 0}}, {"unheard": 1}, {"summary": "Cats."}])
def test_a_description_is_checked_at_the_start(web: Web, description: Any) -> None:
    with pytest.raises(ValueError, match="description"):
        web(models={"poet": {"url": "http://poet.test", "description": description}})
