"""How much of its speed a predictor keeps beside another one, or beside a process that never waits on each core.

Both are asked without a pause. On two cores half of the speed is fair beside either of them; the floor is 0.4.
GOMP_SPINCOUNT=300000 OMP_NUM_THREADS=2 shows what OpenMP would do by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx2

from scripts.benchmarks.request_shapes import CHAT
from scripts.benchmarks.servers import start_predictor
from scripts.loopback_http import async_client
from scripts.progress import tracked
from scripts.project import ROOT

TOGETHER = 4
"""Requests at once to each predictor."""

TOKENS = 64
"""Of a text at most."""

BUSY = "busy loops"

Ask = Callable[[httpx2.AsyncClient, int], Awaitable[int]]
"""Send request number i, and tell how many units came of it."""

Speeds = Mapping[str, float]
"""Units a second, by who made them."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench contention", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of all of them by turns; medians are printed")
    arguments = parser.parse_args(argv)
    models = ROOT / "models"
    with (
        start_predictor(models / "poet", "auto", TOGETHER) as poet,
        start_predictor(models / "painter", "auto", TOGETHER) as painter,
    ):
        urls = {"poet": poet.url, "painter": painter.url}
        measure(urls, seconds=1.0)  # first requests are slower
        rounds = [measure_round(urls, arguments.seconds) for _ in tracked(range(arguments.rounds), "rounds")]
    print(f"{len(os.sched_getaffinity(0))} cores, medians of {arguments.rounds}; texts in tokens/s, pictures/s")
    print_table(rounds)


def measure_round(urls: Mapping[str, str], seconds: float) -> dict[tuple[str, str], tuple[float, float]]:
    """The speed alone and in company, of each predictor beside the other and beside busy loops."""
    alone = {name: measure({name: url}, seconds)[name] for name, url in urls.items()}
    both = measure(urls, seconds)
    found = {(name, other): (alone[name], both[name]) for name in urls for other in urls if other != name}
    for name, url in urls.items():
        with busy_loops(len(os.sched_getaffinity(0))):
            found[name, BUSY] = alone[name], measure({name: url}, seconds)[name]
    return found


def measure(urls: Mapping[str, str], seconds: float) -> Speeds:
    """All at once, for so long and until what was begun is finished."""

    async def run() -> list[float]:
        return await asyncio.gather(*(_speed(ASK[name], url, seconds) for name, url in urls.items()))

    return dict(zip(urls, asyncio.run(run()), strict=True))


async def _speed(ask: Ask, url: str, seconds: float) -> float:
    made: list[int] = []
    async with async_client(url) as http:
        begun = time.perf_counter()

        async def client(number: int) -> None:
            made.append(await ask(http, number))
            while time.perf_counter() - begun < seconds:
                number += TOGETHER
                made.append(await ask(http, number))

        await asyncio.gather(*map(client, range(TOGETHER)))
        return sum(made) / (time.perf_counter() - begun)


async def _write(http: httpx2.AsyncClient, number: int) -> int:
    answer = await http.post(CHAT.path, json={**CHAT.body(number, TOKENS, False), "seed": number})
    tokens: int = answer.raise_for_status().json()["usage"]["completion_tokens"]
    return tokens


async def _draw(http: httpx2.AsyncClient, number: int) -> int:
    body = {"model": "m", "prompt": "画一只猫", "seed": number}
    answer = await http.post("/openai/v1/images/generations", json=body)
    return len(answer.raise_for_status().json()["data"])


ASK: Mapping[str, Ask] = {"poet": _write, "painter": _draw}


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def print_table(rounds: list[dict[tuple[str, str], tuple[float, float]]]) -> None:
    print(f"{'':<28}{'alone':>10}{'together':>10}{'ratio':>8}")
    for name, other in rounds[0]:
        pairs = [one[name, other] for one in rounds]
        alone, together = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(one / before for before, one in pairs)
        print(f"{f'{name} beside {other}':<28}{alone:10.2f}{together:10.2f}{ratio:8.2f}")
