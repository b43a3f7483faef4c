"""A model server that tests wake by hand, and what web says of its state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
from starlette.types import ASGIApp

from contract import ModelStatus, ProblemError, problems
from tests.support.waiting import eventually

Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]
Front = Callable[..., Awaitable[httpx2.AsyncClient]]
Events = Callable[[str], list[tuple[str, Any]]]
Slug = Callable[[httpx2.Response], str]

LIMIT = 10.0
"""Seconds after which a test that waits has failed."""

SILENCE_SECONDS = 0.1
"""What web.readiness.model_readiness.SILENCE_SECONDS is in these tests."""

REQUEST = {"prompt": "春"}
LIVE = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}
READY = "/v2/health/ready"


class Model:
    """Until it is awake it says that it is loading, or does what `asleep` does."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.awake = asyncio.Event()
        self.asleep: Callable[[httpx2.Request], Awaitable[httpx2.Response]] = self.loading
        self.phase = "reading"
        self.posts = self.questions = self.in_flight = 0
        self.held: asyncio.Event | None = None
        """Where there is one, a model that is awake does not answer before it is set."""
        self.ended = asyncio.Event()

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        question = request.url.path == READY
        assert (request.method == "GET") == question
        self.posts += not question
        self.questions += question
        self.in_flight += 1
        try:
            if not self.awake.is_set():
                answer = await self.asleep(request)
                if not self.awake.is_set():
                    return answer
            if question:
                return httpx2.Response(200, json={"ready": True})
            if self.held is not None:
                await self.held.wait()
            return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=self.text)
        finally:
            self.in_flight -= 1

    async def loading(self, _request: httpx2.Request) -> httpx2.Response:
        return refusal(problems.LOADING, retry_after=1, phase=self.phase, seconds=0.25)

    async def silent(self, _request: httpx2.Request) -> httpx2.Response:
        """As Knative's activator is."""
        await self.awake.wait()
        return httpx2.Response(500)  # which nobody sees

    async def begun(self, _request: httpx2.Request) -> httpx2.Response:
        """Answers, and not to the end before `ended` is set; other requests are held meanwhile."""

        async def content() -> AsyncGenerator[bytes]:
            yield self.text[:10]
            await self.ended.wait()
            yield self.text[10:]

        self.held = asyncio.Event()
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())

    async def broken(self, _request: httpx2.Request) -> httpx2.Response:
        return refusal(problems.UNAVAILABLE)


def refusal(kind: problems.ProblemType, **members: Any) -> httpx2.Response:
    error = ProblemError(kind, "Because.", **members)
    return httpx2.Response(kind.status, json=error.document, headers=error.headers)


async def status(client: httpx2.AsyncClient, name: str = "poet") -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/status")).json()
    [found] = [entry for entry in document["models"] if entry["name"] == name]
    ModelStatus.model_validate(found)
    return dict(found)


async def until_status(client: httpx2.AsyncClient, **members: Any) -> dict[str, Any]:
    async def reached() -> dict[str, Any]:
        found = await status(client)
        return found if members.items() <= found.items() else {}

    return await eventually(reached, f"a status of {members}", seconds=LIMIT)


async def wake_up(client: httpx2.AsyncClient, model: Model) -> None:
    """From its state to ready."""
    waiting = asyncio.create_task(client.post("/generate", json=REQUEST))
    await until_status(client, state="waking")
    model.awake.set()
    assert (await waiting).status_code == 200


async def break_connection(client: httpx2.AsyncClient, model: Model) -> None:
    """After which the state of the model is unknown."""

    async def breaks(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("reset")

    asleep, model.asleep = model.asleep, breaks
    assert (await client.post("/generate", json=REQUEST)).status_code == 502
    model.asleep = asleep
    assert (await status(client))["state"] == "unknown"


def states(found: list[tuple[str, Any]]) -> list[str]:
    """Of the status events among these."""
    return [data["state"] for name, data in found if name == "status"]
