"""The ASGI side of one connection, played by hand."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Scope

LIMIT = 10.0


class Wire:
    """What the client does is put into `incoming`; what it gets is in `sent`."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[MutableMapping[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()

    def body(self, data: bytes, more: bool = False) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)

    async def run(self, app: ASGIApp, headers: dict[str, str] | None = None) -> None:
        raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope: Scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": raw}
        await asyncio.wait_for(app(scope, self.incoming.get, self.send), LIMIT)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def answer(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


@pytest.fixture
def wire() -> Wire:
    return Wire()
