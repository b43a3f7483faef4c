"""The application in front of fake model servers, for programs of other people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from web.app import create_app
from web.settings import Settings

DEADLINE = 1200
"""Of a program; 300 examples of each operation take minutes."""

Start = Callable[..., Awaitable[str]]


@pytest.fixture
def start(
    serve: Callable[[ASGIApp], Awaitable[str]],
    stream: Callable[..., bytes],
    sse_answer: Callable[..., httpx2.Response],
    painter: Callable[[httpx2.Request], httpx2.Response],
) -> Start:
    """Serves the application with these settings, in front of fake model servers; its address."""

    def served(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":  # is it awake?
            return httpx2.Response(200)
        return painter(request) if request.url.host == "painter.test" else sse_answer(stream("春", "天"))

    async def start(**settings: Any) -> str:
        models = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
        return await serve(create_app(Settings(**{"models": models, **settings}), httpx2.MockTransport(served)))

    return start


@pytest.fixture
def run_program() -> Callable[..., Awaitable[str]]:
    """Runs a command in a folder until it succeeds, while this loop serves; gives what it has printed."""

    async def run(*command: str, cwd: Path) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE):
            output, errors = await process.communicate()
        assert process.returncode == 0, output.decode() + errors.decode()
        return output.decode()

    return run
