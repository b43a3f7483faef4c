"""Jobs over HTTP as tests use them: a model server that can be held, and a client's steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2

from tests.support.waiting import SECONDS, eventually

Front = Callable[..., Awaitable[httpx2.AsyncClient]]
"""Starts a web in front of the poet and the painter, and gives a client of it."""

Event = tuple[str | None, str, Any]
"""Id, name and data of a server-sent event."""

LIMIT = SECONDS
REQUEST = {"prompt": "春"}
CAT = {"prompt": "猫", "kind": "image"}
ASYNC = {"Prefer": "respond-async"}
LIVE = {"Accept": "text/event-stream"}
PNG = {"Accept": "image/png"}


class Poet:
    """A model server that sends the second half of its text once `finish` is set."""

    def __init__(self, whole: bytes) -> None:
        self._whole = whole
        self.finish = asyncio.Event()
        self.asked: list[httpx2.Request] = []
        self.refusal: httpx2.Response | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        if self.refusal is not None:
            return self.refusal
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=self._content())

    async def _content(self) -> AsyncGenerator[bytes]:
        cut = self._whole.rindex(b"data", 0, self._whole.index("天".encode()))
        yield self._whole[:cut]
        await self.finish.wait()
        yield self._whole[cut:]


async def submit(client: httpx2.AsyncClient, request: dict[str, Any] = REQUEST, key: str | None = None) -> str:
    """The location of the job that this request becomes."""
    keyed = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post("/generate", json=request, headers=ASYNC | keyed)
    assert answer.status_code == 202, answer.text
    location: str = answer.headers["location"]
    return location


async def in_state(client: httpx2.AsyncClient, location: str, *states: str) -> httpx2.Response:
    """The job's document once it is in one of these states."""

    async def get() -> httpx2.Response | None:
        answer = await client.get(location)
        return answer if answer.json()["state"] in states else None

    answer = await eventually(get, f"{location} is {states}")
    assert answer is not None
    return answer


async def ended(client: httpx2.AsyncClient, location: str) -> dict[str, Any]:
    answer = await in_state(client, location, "completed", "failed", "cancelled")
    document: dict[str, Any] = answer.json()
    return document


def read(text: str) -> list[Event]:
    """The events of a stream."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(block.get("id"), block["event"], json.loads(block["data"])) for block in blocks]


async def watched(client: httpx2.AsyncClient, location: str, after: str | None = None) -> list[Event]:
    """The events of a job up to its end."""
    answer = await client.get(location, headers=LIVE | ({} if after is None else {"Last-Event-ID": after}))
    assert answer.status_code == 200, answer.text
    return read(answer.text)
