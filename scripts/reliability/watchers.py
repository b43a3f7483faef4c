"""A thousand clients watch twenty jobs through two replicas of web that share a Redis. Exits with 0 if each has seen
every event of its job once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import ExitStack
from typing import Any

import httpx2
import redis

from scripts.benchmarks.servers import start_server
from scripts.loopback_http import async_client
from scripts.progress import gathered
from scripts.reliability.alerts.watch import add_prometheus_flag, watching
from scripts.reliability.deployment import redis_server, stub_models
from scripts.reliability.stub_models import words

TOKENS = 60
PACE = 0.2
"""Tenths of a second between two tokens, which the stub takes from the temperature."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos watchers", description=__doc__)
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=20)
    add_prometheus_flag(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        store = stack.enter_context(redis_server())
        model = stack.enter_context(stub_models())
        flags = ["--models", json.dumps({"poet": model}), "--store-url", store, "--idle-seconds", "0"]
        flags += ["--max-clients", str(2 * arguments.watchers)]
        webs = [stack.enter_context(start_server("web", flags, "/healthz")) for _ in range(2)]
        watch = stack.enter_context(watching(arguments.prometheus, webs))
        counter = stack.enter_context(redis.Redis.from_url(store))
        memory = [web.resident_bytes for web in webs]
        before, begun = _commands(counter), time.monotonic()
        logs = asyncio.run(_watch([web.url for web in webs], arguments.jobs, arguments.watchers))
        seconds = time.monotonic() - begun
        commands = _commands(counter) - before
        grown = [(web.resident_bytes - held) / 1e6 for web, held in zip(webs, memory, strict=True)]
    wrong = sum(not _whole(job, log) for job, log in logs)
    print(f"{len(logs)} watchers of {arguments.jobs} jobs in {seconds:.1f} s: {wrong} have not seen every event once")
    print(f"Redis: {commands / seconds:.0f} commands/s; memory of the replicas: {grown[0]:+.1f} and {grown[1]:+.1f} MB")
    return 0 if not wrong and watch.good else 1


def _commands(counter: Any) -> int:
    return int(counter.info("stats")["total_commands_processed"])


async def _watch(webs: list[str], jobs: int, watchers: int) -> list[tuple[int, list[tuple[str, Any]]]]:
    """The number of its job and the events of each watcher."""
    limits = httpx2.Limits(max_connections=None)
    async with async_client() as orders, httpx2.AsyncClient(limits=limits, timeout=300, trust_env=False) as http:
        ids = [await _order(orders, webs[number % 2], number) for number in range(jobs)]

        async def watch(number: int) -> tuple[int, list[tuple[str, Any]]]:
            job = number % jobs
            url = f"{webs[number // jobs % 2]}/generations/{ids[job]}"
            events: list[tuple[str, Any]] = []
            async with http.stream("GET", url, headers={"Accept": "text/event-stream"}) as answer:
                answer.raise_for_status()
                name = ""
                async for line in answer.aiter_lines():
                    kind, _, value = line.partition(": ")
                    if kind == "event":
                        name = value
                    elif kind == "data":
                        events.append((name, json.loads(value)))
            return job, events

        return await gathered(map(watch, range(watchers)), "watchers")


async def _order(http: httpx2.AsyncClient, web: str, seed: int) -> str:
    body = {"prompt": "春", "seed": seed, "max_tokens": TOKENS, "temperature": PACE}
    answer = await http.post(web + "/generate", json=body, headers={"Prefer": "respond-async"})
    job: str = answer.raise_for_status().json()["id"]
    return job


def _whole(job: int, events: list[tuple[str, Any]]) -> bool:
    """Whether these are the tokens of the job, each once, and then its result."""
    tokens = [data["text"] for name, data in events if name == "token"]
    text = "".join(words(job, TOKENS))
    return "".join(tokens) == text and events[-1][0] == "result" and events[-1][1]["text"] == text


if __name__ == "__main__":
    sys.exit(main())
