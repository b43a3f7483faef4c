"""Server-sent events: framing, heartbeats and the response that carries them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEARTBEAT_SECONDS = 10.0
"""Silence after which a comment is sent, so that no proxy in between takes the stream for dead."""

_HEARTBEAT = b": keep-alive\n\n"


def frame(data: str, event: str | None = None, entry: str | None = None) -> bytes:
    """One event; `entry` is its id. `data` must be a single line, as JSON is."""
    head = (f"id: {entry}\n" if entry else "") + (f"event: {event}\n" if event else "")
    return f"{head}data: {data}\n\n".encode()


class EventStream(StreamingResponse):
    """Sends frames as they come and a heartbeat whenever none came for a while. Stands behind a RequestGuard, which
    cancels it when the client has left.

    `on_close` is called however it ends. The `finally` of `frames` is not enough: a generator that was never begun,
    because the client left before, has none.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            frames,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._frames = frames
        self._heartbeat_seconds = heartbeat_seconds
        self._on_close = on_close
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.stream_response(send)
        finally:
            self._on_close()
            # A cancelled send leaves the generator suspended, or not even begun: its clean-up must not wait for the
            # garbage collector. A scope around us may cancel again and again until it is left, hence the shield.
            with anyio.CancelScope(shield=True):
                await self._frames.aclose()

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        now = asyncio.get_running_loop().time
        self._sent_at = now()
        heart = asyncio.create_task(self._beat(send))  # one for all: a task for each frame costs more than the frame
        try:
            async for chunk in self._frames:
                self._sent_at = now()
                await _send_chunk(send, chunk)
        finally:
            heart.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

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
