"""How much a request may ask for is a deployment's to say, and every description of it says the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from contract import MAX_TOKENS, PROMPT_CHARS
from contract.limits import IMAGE_CHARS

Web = Callable[..., httpx2.AsyncClient]

PICTURES = 2 * IMAGE_CHARS
"""A picture and its mask."""

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(("settings", "characters", "tokens"), [
    ({}, PROMPT_CHARS, MAX_TOKENS),
    ({"max_prompt_chars": 5, "max_tokens": 6}, 5, 6),
    ({"max_prompt_chars": 200_000, "max_tokens": 131_072}, 200_000, 131_072),
])  # fmt: skip
async def test_what_is_set_is_allowed_and_no_more(
    web: Web, seen: list[httpx2.Request], settings: dict[str, Any], characters: int, tokens: int
) -> None:
    client = web(**settings)
    # Each character takes twelve bytes: the body has room for that.
    body = json.dumps({"prompt": "𠀀" * characters, "max_tokens": tokens}).encode()
    answer = await client.post("/generate", content=body, headers=JSON)
    assert answer.status_code == 200, answer.text
    sent = json.loads(seen.pop().content)
    assert (len(sent["messages"][0]["content"]), sent["max_tokens"]) == (characters, tokens)

    answer = await client.post("/generate", json={"prompt": "x" * (characters + 1), "max_tokens": tokens + 1})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"field": "prompt", "detail": f"string should have at most {characters} characters"},
        {"field": "max_tokens", "detail": f"input should be less than or equal to {tokens}"},
    ]
    painting = {"prompt": "x", "model": "painter", "negative_prompt": "x" * (characters + 1)}
    answer = await client.post("/generate", json=painting)
    assert [error["field"] for error in answer.json()["errors"]] == ["negative_prompt"]
    answer = await client.post("/", content=f"prompt=x&max_tokens={tokens + 1}", headers=FORM)
    assert (answer.status_code, f"less than or equal to {tokens}" in answer.text) == (400, True)
    assert not seen

    schema = (await client.get("/openapi.json")).json()["components"]["schemas"]["GenerationRequest"]["properties"]
    assert schema["prompt"]["maxLength"] == schema["negative_prompt"]["anyOf"][0]["maxLength"] == characters
    assert schema["max_tokens"]["anyOf"][0]["maximum"] == tokens
    page = (await client.get("/", headers={"Accept": "text/html"})).text
    assert re.findall(r'name="max_tokens"[^>]* max="(\d+)"', page) == [str(tokens)]


@pytest.mark.parametrize(("settings", "most"), [
    ({}, 1_048_576 + PICTURES),
    ({"max_prompt_chars": 5}, 1_048_576 + PICTURES),
    ({"max_prompt_chars": 65_536}, 1_835_008 + PICTURES),
    ({"max_prompt_chars": 65_536, "models": {"poet": "http://poet.test"}}, 1_835_008),
    ({"max_prompt_chars": 65_536, "body_bytes": 100}, 100),
])  # fmt: skip
async def test_the_largest_body_follows_from_the_longest_prompt(web: Web, settings: dict[str, Any], most: int) -> None:
    client = web(**settings)
    answers = [await client.post("/generate", content=b" " * size, headers=JSON) for size in (most, most + 1)]
    assert [answer.status_code for answer in answers] == [400, 413]
