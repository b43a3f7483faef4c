"""Server-sent events: frames, heartbeats, and the end of a stream however it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.types import Message

from tests.support.waiting import eventually
from wire.sse import EventStream, LastFrame, frame

Wire = Any  # of conftest, which cannot be imported


class Frames:
    """Frames that wait for `go` before each, and note when they are closed."""

    def __init__(self, *frames: bytes, wait: bool = False) -> None:
        self.frames = frames
        self.go = asyncio.Event()
        if not wait:
            self.go.set()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes]:
        try:
            for each in self.frames:
                await self.go.wait()
                yield each
        finally:
            self.closed = True


def test_a_frame_with_a_name() -> None:
    assert frame('{"text":"春"}', "token") == 'event: token\ndata: {"text":"春"}\n\n'.encode()


def test_a_frame_without_a_name() -> None:
    assert frame("[DONE]") == b"data: [DONE]\n\n"


async def test_frames_are_sent_one_by_one(wire: Wire) -> None:
    frames = Frames(b"a", b"b")
    await wire.run(EventStream(frames()))
    assert [message.get("body") for message in wire.sent[1:]] == [b"a", b"b", b""]
    assert wire.status == 200
    assert wire.headers["content-type"].startswith("text/event-stream")
    assert wire.headers["cache-control"] == "no-store"
    assert wire.headers["x-accel-buffering"] == "no"
    assert frames.closed


async def test_a_last_frame_ends_the_body(wire: Wire) -> None:
    frames = Frames(b"a", LastFrame(b"b"))
    await wire.run(EventStream(frames()))
    assert [(message["body"], message["more_body"]) for message in wire.sent[1:]] == [(b"a", True), (b"b", False)]
    assert frames.closed


async def test_heartbeats_are_sent_in_silence_only(wire: Wire) -> None:
    frames = Frames(b"data: a\n\n", wait=True)
    task = asyncio.create_task(wire.run(EventStream(frames(), heartbeat_seconds=0.01)))
    await eventually(lambda: wire.answer.count(b": keep-alive\n\n") >= 3)
    frames.go.set()
    await task
    assert wire.answer.replace(b": keep-alive\n\n", b"") == b"data: a\n\n"
    assert wire.answer.endswith(b"data: a\n\n")


async def test_the_header_does_not_wait_for_the_first_frame(wire: Wire) -> None:
    frames = Frames(b"a", wait=True)
    task = asyncio.create_task(wire.run(EventStream(frames())))
    await eventually(lambda: bool(wire.sent))
    assert wire.status == 200
    frames.go.set()
    await task


async def test_a_stream_cancelled_between_frames_closes_them(wire: Wire) -> None:
    frames = Frames(b"a", wait=True)
    task = asyncio.create_task(wire.run(EventStream(frames())))
    await eventually(lambda: bool(wire.sent))
    await cancel(task)
    assert frames.closed


@pytest.mark.parametrize("at", [b"a", b": keep-alive\n\n"], ids=["a frame", "a heartbeat"])
async def test_a_stream_cancelled_while_sending_closes_its_frames(wire: Wire, at: bytes) -> None:
    """The generators are suspended then, and even the frames' next step may be under way."""
    frames, sending = Frames(b"a", wait=at != b"a"), asyncio.Event()

    async def stuck(message: Message) -> None:
        if message.get("body") == at:
            sending.set()
            await asyncio.Event().wait()

    wire.send = stuck
    task = asyncio.create_task(wire.run(EventStream(frames(), heartbeat_seconds=0.01)))
    await asyncio.wait_for(sending.wait(), 10)
    await cancel(task)
    assert frames.closed


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stream_that_never_began_is_closed(wire: Wire) -> None:
    wire.reads.clear()
    closed = []
    task = asyncio.create_task(wire.run(EventStream(Frames(b"a")(), on_close=lambda: closed.append(True))))
    await asyncio.sleep(0)
    await cancel(task)
    assert closed
