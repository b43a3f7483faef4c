"""What scripts/bench measures besides speed: what the servers add to one text, how soon a slot is free, memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import uvloop

from scripts.benchmarks.contenders import (
    CHAT,
    ORDER,
    PLAIN,
    Server,
    Shape,
    generate,
    in_passing,
    load,
    over_http,
    predictor,
    together,
    web,
)

SHORT = 8
"""Tokens of a short text."""

TEXTS = 200
LEAVERS = 20
LONG = 400

SLOTS = 8


def overhead(model: Path, dtype: str) -> None:
    """One text of SHORT tokens at a time: bare generate, the predictor, and web in front of it."""
    bare = in_passing(lambda: _bare(model, dtype))
    with predictor(model, dtype, SLOTS) as served, web(served.url) as front:
        sides = {"generate": bare, "predictor": _clocked(served, CHAT), "web": _clocked(front, ORDER)}
    line = ", ".join(f"{side} {1e3 * p50:.1f}/{1e3 * p99:.1f}" for side, (p50, p99) in sides.items())
    print(f"overhead: p50/p99 of {TEXTS} texts of {SHORT} tokens, one at a time: {line} ms", flush=True)


def _bare(model: Path, dtype: str) -> tuple[float, float]:
    checkpoint = load(model, dtype)
    return quantiles(lambda _: generate(checkpoint, [SHORT]))


def _clocked(server: Server, shape: Shape) -> tuple[float, float]:
    with httpx.Client(timeout=600, trust_env=False, verify=PLAIN) as client:

        def ask(number: int) -> None:
            client.post(server.url + shape.path, json=shape.body(number, SHORT, False)).raise_for_status()

        return quantiles(ask)


def quantiles(work: Callable[[int], None]) -> tuple[float, float]:
    """p50 and p99 in seconds, after a warm-up."""
    seconds = []
    for number in range(TEXTS + 10):
        begun = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(seconds[10:], n=100)
    return cuts[49], cuts[98]


def time_to_free_slot(model: Path, dtype: str) -> None:
    with predictor(model, dtype, 1) as served, web(served.url) as front:
        report_leaving({"predictor": (served, CHAT), "web": (front, ORDER)}, LONG, "a token")


def report_leaving(sides: dict[str, tuple[Server, Shape]], length: int, unit: str) -> None:
    """One slot: a client leaves in the middle of `length` tokens or steps, and the next one, who waits, begins."""
    line = ", ".join(f"through {name} {_leave(*side, length)} {unit}" for name, side in sides.items())
    print(f"slot free after a client left (median and longest of {LEAVERS}): {line}", flush=True)


def _leave(server: Server, shape: Shape, length: int) -> str:
    whole = uvloop.run(over_http(server, shape)(0, length))
    freed = [uvloop.run(_leave_once(server, shape, length)) for _ in range(LEAVERS)]
    pace = (whole.total_s - whole.first_s) / (length - 1)
    return f"{1e3 * statistics.median(freed):.1f} and {1e3 * max(freed):.1f} ms, at {1e3 * pace:.1f} ms"


async def _leave_once(server: Server, shape: Shape, length: int) -> float:
    """Seconds from leaving until what waited has begun."""
    async with httpx.AsyncClient(base_url=server.url, timeout=600, trust_env=False, verify=PLAIN) as client:
        async with client.stream("POST", shape.path, json=shape.body(0, length, True)) as left:
            lines = left.aiter_lines()
            await _find(shape.running, lines)
            waiting = asyncio.create_task(_begun(client, shape))
            await _find(shape.token, lines)
            gone = time.perf_counter()
        return await waiting - gone


async def _begun(client: httpx.AsyncClient, shape: Shape) -> float:
    async with client.stream("POST", shape.path, json=shape.body(1, 1, True)) as response:
        await _find(shape.running, response.aiter_lines())
        return time.perf_counter()


async def _find(words: str, lines: AsyncIterator[str]) -> None:
    while words not in await anext(lines):
        pass


def endurance(model: Path, dtype: str, requests: int) -> None:
    """Resident memory of both servers after a tenth of the requests and after all of them."""
    with predictor(model, dtype, SLOTS) as served, web(served.url) as front:
        ask = over_http(front, ORDER)
        sizes = []
        for share in (requests // 10, requests - requests // 10):
            for begin in range(0, share, 2 * SLOTS):
                uvloop.run(together(ask, [SHORT] * min(2 * SLOTS, share - begin)))
            sizes.append((served.resident_bytes / 2**20, front.resident_bytes / 2**20))
    (predictor_before, web_before), (predictor_after, web_after) = sizes
    print(
        f"memory after {requests // 10} and {requests} requests: predictor {predictor_before:.1f} and "
        f"{predictor_after:.1f} MiB, web {web_before:.1f} and {web_after:.1f} MiB",
        flush=True,
    )
