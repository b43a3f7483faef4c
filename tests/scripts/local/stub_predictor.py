"""A predictor without a model, as far as the supervisor and web can tell: it starts in a moment.

The HTTP server, the tracking of requests and the reports to the supervisor are the real ones. The content of the file
`--behaviour` makes it fail: `fail WHY` like a model that cannot be loaded, `die` by SIGKILL, `leave` with status 0,
`hang`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from predictor import systemd
from predictor.server.http_server import HttpServer
from predictor.server.request_tracker import RequestTracker
from wire.connections.http_protocol import HttpProtocol
from wire.listener import listen

POLL_SECONDS = 0.01
SLOTS = 3


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle-seconds", type=float, required=True)
    parser.add_argument("--keep-alive-seconds", type=float, default=0.5)
    parser.add_argument("--behaviour", type=Path, required=True)
    arguments = parser.parse_args()
    listener = systemd.inherited_listener() or listen("127.0.0.1", 0)
    systemd.notify_phase("loading")
    match (arguments.behaviour.read_text() if arguments.behaviour.exists() else "").split(maxsplit=1):
        case ["fail", why]:
            systemd.notify_failure(why)
            return 1
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["leave"]:
            return 0
        case ["hang"]:
            time.sleep(3600)  # noqa: ASYNC251  hanging is what it is to do

    idle_seconds: float = arguments.idle_seconds or math.inf
    requests = RequestTracker(idle_seconds)
    leaving = asyncio.Event()
    keep_alive: float = arguments.keep_alive_seconds
    config = uvicorn.Config(
        requests.middleware(Starlette(routes=ROUTES)),
        http=HttpProtocol,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]  # a fraction does as well
        timeout_graceful_shutdown=5,
    )
    server = HttpServer(config, listener, leaving.set)
    serving = asyncio.create_task(server.serve())
    systemd.notify_slots(SLOTS)
    systemd.notify_ready()
    while not leaving.is_set() and not (requests.quiet_s >= idle_seconds and server.stop_accepting_if_unconnected()):
        await asyncio.sleep(POLL_SECONDS)
    systemd.notify_stopping()
    server.should_exit = True
    await serving
    return 0


async def chat(request: Request) -> Response:
    """Answer with the prompt, in two pieces, after the number of seconds that it begins with."""
    body = await request.json()
    prompt = body["messages"][-1]["content"]

    async def events() -> AsyncIterator[str]:
        await asyncio.sleep(float(prompt.partition(" ")[0]))
        half = len(prompt) // 2
        for piece in (prompt[:half], prompt[half:]):
            yield _data({"choices": [{"delta": {"content": piece}}]})
        yield _data({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        yield _data({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def ready(_request: Request) -> Response:
    return JSONResponse({"pid": os.getpid()})


ROUTES = [
    Route("/openai/v1/chat/completions", chat, methods=["POST"]),
    Route("/v2/health/ready", ready, methods=["GET"]),
]


def _data(document: object) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


if __name__ == "__main__":
    status = asyncio.run(main())
    sys.stdout.flush()
    os._exit(status)
