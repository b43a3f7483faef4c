"""Results and events of a predictor, and a sink that answers with them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from starlette.types import ASGIApp

from contract import Picture, PictureResult, PictureTiming, TextResult, Timing, Usage
from contract.cloudevents import COMPLETED, REQUESTED, CloudEvent
from wire.cloudevents import Mode, read_events, write_event

Events = Callable[[str], list[tuple[str, Any]]]
Slug = Callable[[httpx2.Response], str]
Serve = Callable[[ASGIApp], Awaitable[str]]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]
App = Callable[..., ASGIApp]
Front = Callable[..., Awaitable[httpx2.AsyncClient]]

LIMIT = 10.0
"""Seconds after which a test that waits has failed."""

LIVE = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}


def poem(job: str | None, text: str = "春眠不觉晓") -> TextResult:
    return TextResult(
        id=job or "?",
        model="poet",
        text=text,
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=5),
        timing=Timing(queue_s=None, first_token_s=0.1, total_s=0.2),
    )


def painting(job: str | None, count: int = 1) -> PictureResult:
    data = base64.b64encode(b"a picture").decode()
    picture = Picture(data=data, media_type="image/png", seed=7, width=64, height=64)
    return PictureResult(
        id=job or "?", model="painter", images=[picture] * count, timing=PictureTiming(queue_s=None, total_s=0.2)
    )


def about(job: str | None, kind: str, data: Any = None, **extensions: str) -> CloudEvent:
    """An event of this type about a job."""
    event = CloudEvent(id=f"{kind}-{job}", source="urn:test", type=kind, subject=job, extensions=extensions)
    return event if data is None else event.with_data(data)


def completed(request: CloudEvent) -> CloudEvent:
    """The reply to a request: what its model makes."""
    model = json.loads(request.data or b"").get("model")
    result = painting(request.subject) if model == "painter" else poem(request.subject)
    return about(request.subject, COMPLETED, result)


class Sink:
    """Answers as `answer` says, and keeps the events that it was sent."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.authorizations: list[str | None] = []
        self.answer: Callable[[CloudEvent], Awaitable[httpx2.Response]] = self.accepted

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        [event] = read_events({name.lower(): value for name, value in request.headers.items()}, request.content).events
        self.events.append(event)
        self.authorizations.append(request.headers.get("authorization"))
        return await self.answer(event)

    async def accepted(self, _event: CloudEvent) -> httpx2.Response:
        """As a broker answers."""
        return httpx2.Response(202)

    def replies(self, mode: Mode = "binary") -> None:
        """From now on answer as a predictor does: with the result."""

        async def answer(event: CloudEvent) -> httpx2.Response:
            if event.type != REQUESTED:
                return httpx2.Response(204)
            headers, body = write_event(completed(event), mode)
            return httpx2.Response(200, headers=headers, content=body)

        self.answer = answer

    def of(self, kind: str) -> list[CloudEvent]:
        return [event for event in self.events if event.type == kind]


async def submit(client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **body: Any) -> str:
    """The id of a new job."""
    answer = await client.post("/generate", json={"prompt": "春", **body}, headers={**ASYNC, **(headers or {})})
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


async def deliver(client: httpx2.AsyncClient, event: CloudEvent, mode: Mode = "binary") -> httpx2.Response:
    headers, body = write_event(event, mode)
    return await client.post("/events", headers=headers, content=body)


async def job_of(client: httpx2.AsyncClient, job: str) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get(f"/generations/{job}")).json()
    return document


async def ended(client: httpx2.AsyncClient, job: str) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while (document := await job_of(client, job))["state"] in ("queued", "running"):
            await asyncio.sleep(0.01)
    return document


async def log_of(client: httpx2.AsyncClient, job: str) -> str:
    """Its events from the first on, as they are sent."""
    return (await client.get(f"/generations/{job}", headers=LIVE)).text


def newer(document: str | bytes) -> str:
    """The JSON as a version to come may write it: with a field that is unknown here, on every level."""

    def extend(value: Any) -> Any:
        if isinstance(value, list):
            return [extend(item) for item in value]
        if isinstance(value, dict):
            return {name: extend(item) for name, item in value.items()} | {"mood": {"glad": True}}
        return value

    return json.dumps(extend(json.loads(document)), ensure_ascii=False)
