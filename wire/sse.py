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


def frame(data: str, event: str | None = None) -> bytes:
    """One event. `data` must be a single line, as JSON is."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {data}\n\n".encode()


class EventStream(StreamingResponse):
    """Sends frames as they come and a heartbeat whenever none came for a while.

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
        self._frames = frames
        self._beating = _with_heartbeats(frames, heartbeat_seconds)
        super().__init__(
            self._beating,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()
            # A cancelled send leaves both generators suspended, or not even begun: their clean-up must not wait for
            # the garbage collector. Starlette's scope cancels again and again until it is left, hence the shields.
            with anyio.CancelScope(shield=True):
                await self._beating.aclose()
                await self._frames.aclose()


async def _with_heartbeats(frames: AsyncGenerator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    upcoming = asyncio.ensure_future(anext(frames, None))
    try:
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=seconds)
            if not done:
                yield _HEARTBEAT
                continue
            chunk = upcoming.result()
            if chunk is None:
                return
            yield chunk
            upcoming = asyncio.ensure_future(anext(frames, None))
    finally:
        upcoming.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({upcoming})
            await frames.aclose()
