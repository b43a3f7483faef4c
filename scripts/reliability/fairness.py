"""One caller that asks for one text at a time, alone and beside one that always has 200 requests open: plain requests,
jobs in memory, and jobs in a Redis that two replicas of web share. Exits with 0 if the 95th percentile of the small
caller's times is at most twice what it is alone.

The model is a stub with a predictor's queue in front of its slots; web and Redis are the real ones.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import statistics
import sys
import time
from contextlib import ExitStack

import httpx2

from scripts.benchmarks.servers import start_server
from scripts.loopback_http import NO_TLS, TIMEOUT_SECONDS
from scripts.progress import tracked
from scripts.reliability.alerts.watch import AlertWatch, add_prometheus_flag, watching
from scripts.reliability.deployment import redis_server, stub_models

MOST_RATIO = 2.0
TEXT = {"prompt": "x", "max_tokens": 10, "temperature": 0.6}
"""0.6 s at the stub's pace."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos fairness", description=__doc__)
    parser.add_argument("--greedy", type=int, default=200, help="requests that the greedy caller always has open")
    parser.add_argument("--requests", type=int, default=40, help="requests of the small caller, one after the other")
    parser.add_argument("--slots", type=int, default=4, help="texts that the model writes at a time")
    add_prometheus_flag(parser)
    arguments = parser.parse_args()
    ratios: list[float] = []
    watches: list[AlertWatch] = []
    secret = secrets.token_hex()
    for name, replicas, headers in (
        ("plain requests", 1, {}),
        ("jobs in memory", 1, {"Prefer": "wait=300"}),
        ("jobs in Redis", 2, {"Prefer": "wait=300"}),
    ):
        with ExitStack() as stack:
            model = stack.enter_context(stub_models(arguments.slots))
            flags = ["--models", json.dumps({"poet": model}), "--idle-seconds", "0"]
            flags += ["--callers", "header", "--trusted-hops", '["127.0.0.1/32"]', "--callers-secret", secret]
            if replicas > 1:
                flags += ["--store-url", stack.enter_context(redis_server())]
            servers = [stack.enter_context(start_server("web", flags, "/healthz")) for _ in range(replicas)]
            folder = arguments.prometheus / name.replace(" ", "-") if arguments.prometheus else None
            watches.append(stack.enter_context(watching(folder, servers)))
            webs = [server.url for server in servers]
            alone = asyncio.run(_small(webs, headers, arguments.requests, 0))
            beside = asyncio.run(_small(webs, headers, arguments.requests, arguments.greedy))
        ratios.append(beside / alone)
        print(f"{name}: {alone:.3f} s alone, {beside:.3f} s beside {arguments.greedy}: {ratios[-1]:.2f} times")
    return 0 if max(ratios) <= MOST_RATIO and all(watch.good for watch in watches) else 1


async def _small(webs: list[str], headers: dict[str, str], count: int, greedy: int) -> float:
    """The 95th percentile of the small caller's times, in seconds."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(limits=limits, timeout=TIMEOUT_SECONDS, trust_env=False, verify=NO_TLS) as http:
        turns = itertools.cycle(webs)

        async def ask(caller: str) -> float:
            begun = time.monotonic()
            answer = await http.post(
                next(turns) + "/generate", json=TEXT, headers={"X-Forwarded-User": caller, **headers}
            )
            answer.raise_for_status()
            assert answer.json().get("text"), answer.text
            return time.monotonic() - begun

        async def ask_all_the_time() -> None:
            while True:
                await ask("greedy")

        async with asyncio.TaskGroup() as group:
            others = [group.create_task(ask_all_the_time()) for _ in range(greedy)]
            if others:
                await ask("greedy")  # all are there by then
            times = [await ask("small") for _ in tracked(range(count), "requests")]
            for other in others:
                other.cancel()
    return statistics.quantiles(times, n=20, method="inclusive")[-1]


if __name__ == "__main__":
    sys.exit(main())
