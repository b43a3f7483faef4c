"""A model server without a model: texts and pictures that follow from the seed, at a given pace, and counted.

`python -m scripts.reliability.stub_models PORT [SLOTS]`. The words of a text come every `temperature` / 10 seconds; a
picture has as many bytes as its prompt says. With SLOTS that many texts are written at a time, and the others wait in a
predictor's queue.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from predictor.engine.admission_queue import Admission
from predictor.engine.generation import Generation
from predictor.engine.scheduled_task import ScheduledTask
from predictor.protocols.access import caller_of
from scripts.loopback import HOST
from wire.connections.http_protocol import HttpProtocol

generated: Counter[int] = Counter()
"""By seed, how often it was begun."""


class Slots:
    """The places of a predictor that runs `count` tasks at a time."""

    def __init__(self, count: int) -> None:
        self._queue = Admission(count, max_waiting=10_000)
        self._begun: dict[Generation, asyncio.Event] = {}

    @asynccontextmanager
    async def slot(self, caller: str, work: float) -> AsyncIterator[None]:
        task = ScheduledTask(Generation(), work, caller=caller)
        begun = self._begun[task.generation] = asyncio.Event()
        self._queue.admit(task)
        self._fill()
        try:
            await begun.wait()
            yield
        finally:
            del self._begun[task.generation]
            task.generation.close()
            if begun.is_set():
                self._queue.release(task, completed=True)
            self._fill()

    def _fill(self) -> None:
        while self._queue.running < self._queue.slots and (task := self._queue.next_task(block=False)):
            self._begun[task.generation].set()


slots: Slots | None = None


def words(seed: int, count: int) -> list[str]:
    """The text of a seed."""
    return [f"{seed}.{number} " for number in range(count)]


async def chat(request: Request) -> StreamingResponse:
    asked = await request.json()
    generated[asked["seed"]] += 1
    count = asked.get("max_tokens", 10)
    return _stream(
        _in_turn(caller_of(request.headers), _text(asked["seed"], count, asked.get("temperature", 1.0) / 10))
    )


async def picture(request: Request) -> StreamingResponse:
    asked = await request.json()
    generated[asked["seed"]] += 1
    return _stream(_picture(asked["seed"], int(asked["prompt"])))


async def counts(_request: Request) -> JSONResponse:
    return JSONResponse(generated)


async def health(_request: Request) -> JSONResponse:
    return JSONResponse({"ready": True})


def _stream(events: AsyncIterator[object]) -> StreamingResponse:
    async def content() -> AsyncIterator[str]:
        async for event in events:
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(content(), media_type="text/event-stream")


async def _in_turn(caller: str, text: AsyncIterator[object]) -> AsyncIterator[object]:
    if slots is None:
        async for event in text:
            yield event
        return
    async with slots.slot(caller, 1):
        async for event in text:
            yield event


async def _text(seed: int, count: int, pause: float) -> AsyncIterator[object]:
    for word in words(seed, count):
        await asyncio.sleep(pause)
        yield {"choices": [{"index": 0, "delta": {"content": word}}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": count}}


async def _picture(seed: int, size: int) -> AsyncIterator[object]:
    data = base64.b64encode(random.Random(seed).randbytes(size)).decode()
    yield {
        "type": "image_generation.completed",
        "b64_json": data,
        "output_format": "png",
        "size": "64x64",
        "image_index": 0,
        "seed": seed,
        "created_at": 1,
    }


APP = Starlette(
    routes=[
        Route("/openai/v1/chat/completions", chat, methods=["POST"]),
        Route("/openai/v1/images/generations", picture, methods=["POST"]),
        Route("/counts", counts),
        Route("/v2/health/ready", health),
    ]
)

if __name__ == "__main__":
    slots = Slots(int(sys.argv[2])) if len(sys.argv) > 2 else None
    uvicorn.run(APP, host=HOST, port=int(sys.argv[1]), http=HttpProtocol, log_level="error", timeout_keep_alive=60)
