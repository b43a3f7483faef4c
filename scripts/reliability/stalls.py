"""Jobs run on replicas of web that share a Redis, and now and then one of them stands still for longer than its leases
hold. Exits with 0 if every job completed with its own text, and no log holds a token of a run that was taken over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import httpx2

from scripts.benchmarks.servers import Server, start_server
from scripts.loopback_http import async_client, get
from scripts.progress import gathered
from scripts.reliability.alerts.watch import add_prometheus_flag, watching
from scripts.reliability.deployment import redis_server, stub_models
from scripts.reliability.stub_models import words
from web.jobs.stores.redis_queue import LEASE_SECONDS

REPLICAS = 3
CLIENTS = 32
TOKENS = 20
PACE = 1.0
"""Tenths of a second between two tokens, which the stub takes from the temperature."""

AWAY_SECONDS = LEASE_SECONDS + 5
"""How long a replica stands still."""

ENDS = {"completed", "failed", "cancelled"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos stalls", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    add_prometheus_flag(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        store = stack.enter_context(redis_server())
        model = stack.enter_context(stub_models())
        flags = ["--models", json.dumps({"poet": model}), "--store-url", store, "--idle-seconds", "0"]
        webs = [stack.enter_context(start_server("web", flags, "/healthz")) for _ in range(REPLICAS)]
        watch = stack.enter_context(watching(arguments.prometheus, webs))
        begun = time.monotonic()
        jobs, logs, stalls = asyncio.run(_run(webs, arguments.jobs))
        seconds = time.monotonic() - begun
        generated: dict[str, int] = get(model + "/counts").json()
    texts = ["".join(words(seed, TOKENS)) for seed in range(arguments.jobs)]
    states = Counter(job["state"] for job in jobs)
    wrong = sum(job.get("result", {}).get("text") != text for job, text in zip(jobs, texts, strict=True))
    mixed = sum(log != text for log, text in zip(logs, texts, strict=True))
    again = sum(generated.values()) - arguments.jobs
    print(f"{arguments.jobs} jobs in {seconds:.0f} s, {stalls} stalls of {AWAY_SECONDS:g} s: {dict(states)}")
    print(f"wrong texts: {wrong}; logs with tokens of two runs: {mixed}; runs that were taken over: {again}")
    good = states == {"completed": arguments.jobs} and not wrong and not mixed and watch.good
    print("none is mixed, none is doubled" if good else "NOT as it should be")
    return 0 if good else 1


async def _run(webs: list[Server], count: int) -> tuple[list[dict[str, Any]], list[str], int]:
    """The documents of all jobs, the text in the last attempt of each log, and how often a replica stood still."""
    async with async_client(timeout=120) as http:
        limit = asyncio.Semaphore(CLIENTS)

        async def order(seed: int) -> str:
            async with limit:
                body = {"prompt": "春", "seed": seed, "max_tokens": TOKENS, "temperature": PACE}
                headers = {"Prefer": "respond-async"}
                answer = await http.post(webs[0].url + "/generate", json=body, headers=headers)
                job: str = answer.raise_for_status().json()["id"]
                return job

        ids = await asyncio.gather(*map(order, range(count)))
        over = asyncio.Event()
        stalling = asyncio.create_task(_stall(webs[1:], over))

        async def ended(job: str) -> dict[str, Any]:
            while True:
                async with limit:
                    answer = await http.get(f"{webs[0].url}/generations/{job}")
                document: dict[str, Any] = answer.raise_for_status().json()
                if document["state"] in ENDS:
                    return document
                await asyncio.sleep(2)

        async def log(job: str) -> str:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": "0-0"}
            async with limit:
                answer = await http.get(f"{webs[0].url}/generations/{job}", headers=headers)
            return _last_attempt(answer)

        jobs = await gathered(map(ended, ids), "jobs ended")
        over.set()
        stalls = await stalling
        return jobs, await asyncio.gather(*map(log, ids)), stalls


async def _stall(webs: list[Server], over: asyncio.Event) -> int:
    """Let one after the other stand still, from a random moment on, until it is over; how often."""
    count = 0
    while not over.is_set():
        await asyncio.sleep(random.Random(count).uniform(1, 3))
        web = webs[count % len(webs)]
        os.kill(web.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            os.kill(web.pid, signal.SIGCONT)
        count += 1
    return count


def _last_attempt(answer: httpx2.Response) -> str:
    """The tokens after the last time that the job was queued."""
    tokens: list[str] = []
    name = ""
    for line in answer.raise_for_status().text.splitlines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data" and name == "token":
            tokens.append(json.loads(value)["text"])
        elif field == "data" and name == "status" and json.loads(value)["state"] == "queued":
            tokens.clear()
    return "".join(tokens)


if __name__ == "__main__":
    sys.exit(main())
