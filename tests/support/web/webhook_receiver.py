"""A receiver of webhooks on 127.0.0.1, which answers what a test has it answer."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.support.waiting import eventually

SECRET = "whsec_" + "c2hhbmdjYWkgdGVzdHMgc2lnbiB3aXRoIHRoaXMga2V5"
OTHER_SECRET = "whsec_" + "YW5vdGhlciBjYWxsZXIgc2lnbnMgd2l0aCB0aGlzIGtleQ=="

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """The event, if its signature is good by the judgement of the specification's own package."""
        event: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return event


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        fields = {"Content-Length": str(len(body)), "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} Some\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return write


async def silence(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hang_up(_writer: asyncio.StreamWriter) -> None:
    """The connection is closed without an answer."""


class Receiver:
    """Gives one answer after the other, and the last one to all later requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [answer(204)]
        self.received: list[Received] = []
        self.at_once = 0
        self.most_at_once = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook?of=test"

    async def open(self, trust: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=trust)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()

    async def has_received(self, count: int) -> list[Received]:
        await eventually(lambda: len(self.received) >= count, f"{count} deliveries")
        return self.received

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields if field)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(line, headers, body))
            await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the sender has left
        finally:
            self.at_once -= 1
            writer.close()
