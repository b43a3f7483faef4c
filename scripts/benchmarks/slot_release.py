"""How soon a slot is free after its client has left in the middle of a generation."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import uvloop

from scripts.benchmarks.contenders import over_http
from scripts.benchmarks.request_shapes import CHAT, GENERATE, RequestShape
from scripts.benchmarks.servers import Server, start_predictor, start_web
from scripts.loopback_http import async_client
from scripts.progress import tracked

REPEATS = 20
LONG = 400
"""Tokens of the text whose client leaves."""


def measure(model: Path, dtype: str) -> None:
    with start_predictor(model, dtype, 1) as predictor, start_web(predictor.url) as web:
        report({"predictor": (predictor, CHAT), "web": (web, GENERATE)}, LONG, "a token")


def report(servers: dict[str, tuple[Server, RequestShape]], length: int, unit: str) -> None:
    """One slot: a client leaves in the middle of `length` tokens or steps; until the next, which waits, has started."""
    line = ", ".join(f"through {name} {_measure(*server, length)} {unit}" for name, server in servers.items())
    print(f"slot free after a client left (median and longest of {REPEATS}): {line}", flush=True)


def _measure(server: Server, shape: RequestShape, length: int) -> str:
    whole = uvloop.run(over_http(server, shape)(0, length))
    seconds = [
        uvloop.run(_release_seconds(server, shape, length)) for _ in tracked(range(REPEATS), "clients that leave")
    ]
    per_step = (whole.total_s - whole.first_s) / (length - 1)
    return f"{1e3 * statistics.median(seconds):.1f} and {1e3 * max(seconds):.1f} ms, at {1e3 * per_step:.1f} ms"


async def _release_seconds(server: Server, shape: RequestShape, length: int) -> float:
    """From the moment when the client leaves until the waiting request has started."""
    async with async_client(server.url) as client:
        async with client.stream("POST", shape.path, json=shape.body(0, length, True)) as left:
            lines = left.aiter_lines()
            await _find(shape.started, lines)
            waiting = asyncio.create_task(_start_time(client, shape))
            await _find(shape.progressed, lines)
            gone = time.perf_counter()
        return await waiting - gone


async def _start_time(client: httpx2.AsyncClient, shape: RequestShape) -> float:
    async with client.stream("POST", shape.path, json=shape.body(1, 1, True)) as response:
        await _find(shape.started, response.aiter_lines())
        return time.perf_counter()


async def _find(words: str, lines: AsyncIterator[str]) -> None:
    while words not in await anext(lines):
        pass
