"""A predictor without a model: slots, texts, pictures in steps, events and the gauges, at a pace that tests can see."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from contract import TextResult, Timing, Usage
from contract.cloudevents import CARRIED, CAUSATION, COMPLETED, REQUESTED, CloudEvent, now
from wire.cloudevents import read_events, write_event

STEP_SECONDS = 0.02
TOKENS = 12
PHASES = {
    **{"port open": 0.25, "starting": 0.25, "importing torch": 0.5, "importing transformers": 0.25},
    **{"loading the tokenizer": 0.125, "loading the weights": 0.375, "warming up": 0.5, "ready": 2.0},
}


class Predictor:
    """One pod's. `replies` are those to events, which all pods of a model share, as through STORE_URL."""

    def __init__(self, name: str, replies: dict[tuple[str, str], CloudEvent], faults: frozenset[str]) -> None:
        self.name = name
        self.running = 0
        self.finished = 1  # the warm-up
        self._replies = replies
        self._faults = faults
        self.app = Starlette(
            routes=[
                Route("/openai/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/openai/v1/images/generations", self.picture, methods=["POST"]),
                Route("/v2/health/ready", self.ready),
                Route("/metrics", self.metrics),
                Route("/", self.event, methods=["POST"]),
            ]
        )

    async def ready(self, _request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def metrics(self, _request: Request) -> Response:
        lines = ["# TYPE shangcai_num_requests_running gauge", f"shangcai_num_requests_running {self.running:.1f}"]
        lines += [f'shangcai_cold_start_phase_seconds{{phase="{name}"}} {seconds}' for name, seconds in PHASES.items()]
        lines.append(f'shangcai_request_success_total{{finished_reason="stop"}} {self.finished:.1f}')
        return PlainTextResponse("\n".join([*lines, "shangcai_num_requests_waiting 0.0", ""]))

    async def chat(self, _request: Request) -> Response:
        return self._stream(self._text())

    async def picture(self, request: Request) -> Response:
        return self._stream(self._picture(await request.json()))

    async def event(self, request: Request) -> Response:
        [event] = read_events(request.headers, await request.body()).events
        if event.type != REQUESTED:
            return Response(status_code=202)
        if event.key not in self._replies or "generates twice" in self._faults:
            async with self._slot():
                words = [f"{uuid.uuid4().hex[:4]} " async for _ in self._text()]
            self._replies[event.key] = self._reply(event, "".join(words))
        headers, body = write_event(self._replies[event.key])
        return Response(body, headers=headers)

    def _reply(self, event: CloudEvent, text: str) -> CloudEvent:
        subject = event.subject or event.id
        carried = {name: value for name, value in event.extensions.items() if name in CARRIED}
        reply = CloudEvent(
            id=str(uuid.uuid4()),
            source=f"urn:shangcai:model:{self.name}",
            type=COMPLETED,
            subject=subject,
            time=now(),
            extensions={**carried, CAUSATION: event.id},
        )
        result = TextResult(
            id=subject,
            model=self.name,
            text=text,
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=TOKENS),
            timing=Timing(queue_s=None, first_token_s=0.1, total_s=0.2),
        )
        return reply.with_data(result)

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None]:
        self.running += 1
        try:
            yield
        except (GeneratorExit, asyncio.CancelledError):
            if "keeps what is cancelled" in self._faults:
                self.running += 1
            raise
        finally:
            self.running -= 1

    def _stream(self, events: AsyncGenerator[Any]) -> Response:
        async def content() -> AsyncGenerator[str]:
            async with self._slot():
                async for event in events:
                    yield f"data: {json.dumps(event)}\n\n"
                self.finished += 1
                yield "data: [DONE]\n\n"

        return StreamingResponse(content(), media_type="text/event-stream")

    async def _text(self) -> AsyncGenerator[Any]:
        for number in range(TOKENS):
            await asyncio.sleep(STEP_SECONDS)
            yield {"choices": [{"index": 0, "delta": {"content": f"春{number} "}}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": TOKENS}}

    async def _picture(self, asked: Any) -> AsyncGenerator[Any]:
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "png")
        steps = asked.get("steps", 4)
        for step in range(steps):
            await asyncio.sleep(STEP_SECONDS)
            yield {"type": "image_generation.progress", "step": step + 1, "of": steps}
        for index in range(asked.get("n", 1)):
            yield {
                "type": "image_generation.completed",
                "b64_json": base64.b64encode(file.getvalue()).decode(),
                "output_format": "png",
                "size": "64x64",
                "image_index": index,
                "seed": index,
                "created_at": 1,
            }
