"""Whose texts may begin with what another text has left in the cache, and how much of a prompt was there."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

CHAT = "/openai/v1/chat/completions"
COMPLETIONS = "/openai/v1/completions"
PREDICT = "/v1/models/poet:predict"
HEADER = "X-Shangcai-Cache-Salt"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "poet", "messages": [{"role": "user", "content": "moon"}]},
    COMPLETIONS: {"model": "poet", "prompt": ["moon"]},
    PREDICT: {"instances": [{"prompt": "moon"}]},
}


async def salt(
    client: httpx2.AsyncClient, engine: Any, path: str, headers: dict[str, str], **fields: str | None
) -> str | None:
    """Of the task that comes of a request."""
    engine.enqueue("moon")
    answer = await client.post(path, json=BODIES[path] | fields, headers=headers)
    assert answer.status_code == 200, answer.text
    found: str | None = engine.tasks[-1].cache_salt
    return found


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_salt_reaches_the_engine(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    assert await salt(client, engine, path, {}, cache_salt="a1+/=") == "a1+/="
    assert await salt(client, engine, path, {}, cache_salt=None) is None
    assert await salt(client, engine, path, {HEADER: "b2"}, cache_salt="a1") == "a1"


@pytest.mark.parametrize("path", BODIES)
async def test_web_gives_it_in_a_header(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    assert await salt(client, engine, path, {}) is None
    assert await salt(client, engine, path, {HEADER: "b2"}) == "b2"
    for wrong in ("", "a b", "x" * 129):
        assert await salt(client, engine, path, {HEADER: wrong}) is None


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 129, "春", 7])
async def test_a_salt_that_fits_no_header_is_refused(client: httpx2.AsyncClient, wrong: object) -> None:
    answer = await client.post(CHAT, json=BODIES[CHAT] | {"cache_salt": wrong})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "cache_salt"


async def test_the_usage_says_how_many_tokens_were_in_the_cache(client: httpx2.AsyncClient, engine: Any) -> None:
    for cached, details in ((0, None), (2, {"cached_tokens": 2})):
        engine.enqueue("moon", cached_tokens=cached)
        usage = (await client.post(CHAT, json=BODIES[CHAT])).json()["usage"]

        assert usage.get("prompt_tokens_details") == details
