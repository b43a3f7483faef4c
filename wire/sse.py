"""Server-sent events: framing, heartbeats and the response that carries them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from io import BytesIO

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from contract.base64_parts import PART_CHARS, text_parts

HEARTBEAT_SECONDS = 10.0
"""Silence after which a comment is sent, so that no proxy closes the stream as idle."""

RESUMABLE = "resumable"
"""Member of a scope's state: whoever loses this stream finds the rest of it again, so that cutting it off is no end."""

_HEARTBEAT = b": keep-alive\n\n"


def frame(data: str | Iterable[bytes], event: str | None = None, entry: str | None = None) -> bytes:
    """One event; `event` is its name, `entry` its id. `data`, perhaps in parts, must be a single line, as JSON is."""
    head = (f"id: {entry}\n" if entry else "") + (f"event: {event}\n" if event else "") + "data: "
    if isinstance(data, str):
        if len(data) <= PART_CHARS:
            return f"{head}{data}\n\n".encode()
        data = text_parts(data)
    whole = BytesIO()  # joining or formatting would hold megabytes of a picture once more
    whole.write(head.encode())
    for part in data:
        whole.write(part)
    whole.write(b"\n\n")
    return whole.getvalue()


class LastFrame(bytes):
    """The last of a stream, which is sent with the end of the body: two would wake its reader twice."""


class EventStream(StreamingResponse):
    """Sends frames as they come, and a heartbeat after a silence. It needs a RequestGuard around it, which cancels it
    when the client has left.

    `on_close` is called however it ends. The `finally` of `frames` does not run in a generator that was never started,
    because the client had left already. `resumable` is noted in the scope's state, for whoever cuts it off. A HEAD
    request gets the headers and no more.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        on_close: Callable[[], None] = lambda: None,
        resumable: bool = False,
    ) -> None:
        super().__init__(
            frames,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._frames = frames
        self._heartbeat_seconds = heartbeat_seconds
        self._on_close = on_close
        self._resumable = resumable
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})[RESUMABLE] = self._resumable
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await self.stream_response(send)
        finally:
            self._on_close()
            # A cancelled send leaves the generator suspended or not started: close it now, not when it is collected as
            # garbage. anyio cancels every await in a cancelled scope, hence the shield.
            with anyio.CancelScope(shield=True):
                await self._frames.aclose()

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        now = asyncio.get_running_loop().time
        self._sent_at = now()
        last = b""
        heartbeat = asyncio.create_task(self._beat(send))  # one for the stream: a task for each frame costs too much
        try:
            async for chunk in self._frames:
                if isinstance(chunk, LastFrame):
                    last = chunk
                    break
                self._sent_at = now()
                await _send_chunk(send, chunk)
        finally:
            heartbeat.cancel()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _beat(self, send: Send) -> None:
        now = asyncio.get_running_loop().time
        while True:
            left = self._sent_at + self._heartbeat_seconds - now()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self._sent_at = now()
                await _send_chunk(send, _HEARTBEAT)


async def _send_chunk(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
