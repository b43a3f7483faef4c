"""What a model says of itself is heard when it has woken up, and kept for while it sleeps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from web.app import create_app
from web.descriptions import learning
from web.descriptions.learning import told
from web.settings import Settings

Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]
Stream = Callable[..., bytes]
Answer = Callable[[bytes], httpx2.Response]

LIMITS = {"prompt_chars": 32768, "max_tokens": 4096}


class Model:
    """A model server that says what it is, and counts how often."""

    def __init__(self, answer: Callable[[], httpx2.Response]) -> None:
        self.card: dict[str, Any] = {"summary": {"en": "Verse."}, "limits": {"context_tokens": 256}}
        self.failure: Exception | None = None
        self.status = 200
        self.asked = 0
        self._answer = answer

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/openai/v1/models"):
            self.asked += 1
            if self.failure is not None:
                raise self.failure
            cards = [{"id": "poet", "object": "model", "owned_by": "x", **self.card}]
            return httpx2.Response(self.status, json={"object": "list", "data": cards})
        return self._answer()


@pytest.fixture(autouse=True)
def learns(no_learning: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RECENT_SECONDS", 60.0)
    monkeypatch.setattr(learning, "READ_SECONDS", 0.01)


@pytest.fixture
def model(sse_answer: Answer, stream: Stream) -> Model:
    return Model(lambda: sse_answer(stream("春")))


@pytest.fixture
def front(opened: Opened, model: Model) -> Callable[..., Awaitable[httpx2.AsyncClient]]:
    async def start(entry: dict[str, Any] | None = None, **settings: Any) -> httpx2.AsyncClient:
        models = {"poet": {"url": "http://poet.test", **(entry or {})}}
        return await opened(create_app(Settings(**{"models": models, **settings}), httpx2.MockTransport(model)))

    return start


async def known(client: httpx2.AsyncClient) -> dict[str, Any]:
    [entry] = (await client.get("/models")).json()["models"]
    assert isinstance(entry, dict)
    return entry


async def learnt(client: httpx2.AsyncClient) -> dict[str, Any]:
    async def heard() -> bool:
        return "summary" in await known(client)

    await eventually(heard)
    return await known(client)


async def test_a_model_is_asked_once_it_has_answered(front: Any, model: Model) -> None:
    client = await front()
    assert await known(client) == {"name": "poet", "kind": "text", "limits": LIMITS}
    await asyncio.sleep(0.05)
    assert model.asked == 0  # it would be woken
    await client.post("/generate", json={"prompt": "x"})
    assert await learnt(client) == {
        "name": "poet",
        "kind": "text",
        "summary": {"en": "Verse."},
        "limits": {"context_tokens": 256} | LIMITS,
    }
    await client.post("/generate", json={"prompt": "x"})
    await asyncio.sleep(0.05)
    assert model.asked == 1


async def test_a_model_that_has_fallen_asleep_is_not_asked_however_lately_it_answered(
    front: Any, model: Model, tmp_path: Path
) -> None:
    """It would wake up for that, and fall asleep, and be asked again."""
    states = tmp_path / "states.json"
    client = await front(states_file=states)
    await client.post("/generate", json={"prompt": "x"})
    await learnt(client)
    states.write_text(json.dumps({"models": {"poet": {"state": "asleep", "since": time.time()}}}))

    async def is_asleep() -> bool:
        [status] = (await client.get("/status")).json()["models"]
        return bool(status["state"] == "asleep")

    await eventually(is_asleep)
    await asyncio.sleep(0.1)  # ten looks
    assert model.asked == 1


async def test_what_is_stated_prevails(front: Any, model: Model) -> None:
    client = await front({"description": {"limits": {"context_tokens": 64}, "license": "MIT"}})
    assert (await known(client))["limits"] == {"context_tokens": 64} | LIMITS
    await client.post("/generate", json={"prompt": "x"})
    entry = await learnt(client)
    assert (entry["license"], entry["limits"]) == ("MIT", {"context_tokens": 64} | LIMITS)


async def test_a_model_that_was_too_busy_is_asked_again(front: Any, model: Model) -> None:
    model.failure = httpx2.ReadTimeout("silent")
    client = await front()
    await client.post("/generate", json={"prompt": "x"})
    await eventually(lambda: model.asked > 1)
    model.failure = None
    assert (await learnt(client))["summary"] == {"en": "Verse."}


async def test_one_that_does_not_tell_is_not(front: Any, model: Model) -> None:
    model.status = 404
    client = await front()
    await client.post("/generate", json={"prompt": "x"})
    await eventually(lambda: model.asked == 1)
    await asyncio.sleep(0.05)
    assert (model.asked, set(await known(client))) == (1, {"name", "kind", "limits"})


async def test_replicas_share_it_and_a_new_one_knows_it(
    front: Any, model: Model, start_redis: Callable[..., Any], redis_url: str
) -> None:
    first, second = await front(store_url=redis_url), await front(store_url=redis_url)
    await first.post("/generate", json={"prompt": "x"})
    assert await learnt(first) == await learnt(second)
    assert await learnt(await front(store_url=redis_url)) == await learnt(first)
    assert model.asked == 1


async def test_what_was_heard_long_ago_does_not_count(
    front: Any, model: Model, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await front(store_url=redis_url)
    await client.post("/generate", json={"prompt": "x"})
    await learnt(client)
    monkeypatch.setattr(learning, "KEPT_SECONDS", 0.0)
    later = await front(store_url=redis_url)
    await asyncio.sleep(0.1)
    assert "summary" not in await known(later)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"data": [{"id": "other", "max_model_len": 512}]}, {"limits": {"context_tokens": 512}}),
        ({"data": [{"id": "poet", "license": "MIT", "unheard": 1}, {"id": "b"}]}, {"license": "MIT"}),
        ({"data": [{"id": "poet", "refuses": ["a later field", "steps"]}]}, {"refuses": ["steps"]}),
        ({"data": [{"id": "a"}, {"id": "b"}]}, None),
        ({"data": []}, None),
    ],
)
def test_lists_of_other_servers(document: Any, expected: Any) -> None:
    found = told(json.dumps(document).encode(), "poet")
    assert (found and found.model_dump(exclude_none=True)) == expected


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 1}', b'{"data": ["poet"]}', b'{"data": [{"license": 7}]}'])
def test_what_is_no_list_says_nothing(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"no such list|Expecting value|validation error"):
        told(body, "poet")
