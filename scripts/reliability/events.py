"""Send thousands of jobs through two replicas of web, a chaotic broker and one predictor, and count the outcomes.

Everything runs on this machine: a Redis, the test broker with duplicates, errors and delays, and the poet. Exits with 0
if every job completed with the text that belongs to its seed, and was generated once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from contract.cloudevents import COMPLETED, FAILED, REQUESTED
from scripts.benchmarks.servers import start_server
from scripts.loopback import HOST, free_port
from scripts.loopback_http import async_client, client, get
from scripts.progress import gathered
from scripts.project import ROOT
from scripts.reliability.alerts.watch import add_prometheus_flag, watching
from scripts.reliability.deployment import redis_server, running, wait_until_it_answers

SECRET = "nobody else knows this"  # noqa: S105
ENDS = {"completed", "failed", "cancelled"}
CLIENTS = 32
SEEDS = 50
"""Jobs of one seed must have equal texts."""

MAY_FIRE = {"ShangcaiQueueWaitLong"}
"""Alerts: thousands of jobs wait for one poet."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos events", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--duplicates", type=float, default=0.2, help="share of deliveries that are made twice")
    parser.add_argument("--errors", type=float, default=0.1, help="share of attempts that fail")
    parser.add_argument("--max-delay", type=float, default=0.5, help="longest wait before an attempt, in seconds")
    parser.add_argument("--seconds", type=float, default=900, help="deadline of each job")
    add_prometheus_flag(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        store = stack.enter_context(redis_server())
        broker = stack.enter_context(_broker())
        flags = ["--model", str(ROOT / "models" / "poet"), "--name", "poet", "--quiet-seconds", "0"]
        predictor = stack.enter_context(start_server("predictor", flags, "/v2/health/ready"))
        events = ["--dispatch", "events", "--k-sink", broker, "--events-secret", SECRET, "--store-url", store]
        events += ["--models", json.dumps({"poet": {"kind": "text"}})]
        servers = [stack.enter_context(start_server("web", events, "/healthz")) for _ in range(2)]
        watch = stack.enter_context(watching(arguments.prometheus, servers, [predictor], MAY_FIRE))
        webs = [server.url for server in servers]
        _configure(broker, predictor.url, webs, arguments)
        before = _generations(predictor.url)
        begun = time.monotonic()
        jobs = asyncio.run(_run_jobs(webs, arguments.jobs, arguments.seconds))
        seconds = time.monotonic() - begun
        generated = _generations(predictor.url) - before
        tally = get(broker + "/tally").json()
    states = Counter(job["state"] for job in jobs)
    texts: dict[int, set[str]] = {}
    for number, job in enumerate(jobs):
        texts.setdefault(number % SEEDS, set()).add(job.get("result", {}).get("text", ""))
    wrong = sum(len(some) != 1 or "" in some for some in texts.values())
    print(f"{len(jobs)} jobs in {seconds:.0f} s: {dict(states)}")
    print(f"texts that differ although their seeds do not: {wrong}; generated: {generated}")
    print(f"the broker: { ({name: tally[name] for name in tally if name != 'triggers'}) }")
    good = states == {"completed": arguments.jobs} and not wrong and generated == arguments.jobs and watch.good
    print("none is wrong, none is lost" if good else "NOT as it should be")
    return 0 if good else 1


@contextmanager
def _broker() -> Iterator[str]:
    port = free_port()
    program = ROOT / "tests" / "scenarios" / "events" / "broker.py"
    with running([sys.executable, str(program), json.dumps({"port": port})]):
        url = f"http://{HOST}:{port}"
        wait_until_it_answers(url + "/tally")
        yield url


def _configure(broker: str, predictor: str, webs: list[str], arguments: argparse.Namespace) -> None:
    """Requests go to the predictor, replies to both replicas: they share the store."""
    delivery = {"retry": 30, "backoffDelay": 0.2, "backoffPolicy": "linear", "retryAfterMax": 2, "timeout": 120}
    secret = {"headers": {"Authorization": f"Bearer {SECRET}"}}
    triggers = [{"name": "requests", "filter": {"type": REQUESTED}, "subscriber": predictor, **delivery}]
    triggers += [
        {
            "name": f"{kind} to {web}",
            "filter": {"type": kind},
            "subscriber": web + "/events",
            **secret,
            **delivery,
        }
        for kind in (COMPLETED, FAILED)
        for web in webs
    ]
    chaos = {"duplicates": arguments.duplicates, "errors": arguments.errors, "maxDelay": arguments.max_delay, "seed": 1}
    settings = {"triggers": triggers, "chaos": chaos, "concurrency": 64}
    with client() as http:
        http.put(broker + "/config", json=settings).raise_for_status()


async def _run_jobs(webs: list[str], count: int, seconds: float) -> list[dict[str, Any]]:
    """Create the jobs on the replicas in turn, and poll each on the other one until it has ended; their documents."""
    async with async_client(timeout=120) as http:
        limit = asyncio.Semaphore(CLIENTS)
        headers = {"Prefer": "respond-async", "X-Request-Timeout": f"{seconds:g}"}

        async def create(number: int) -> str:
            async with limit:
                body = {"prompt": "春雨", "max_tokens": 8, "seed": number % SEEDS}
                url = webs[number % 2] + "/generate"
                answer = (await http.post(url, json=body, headers=headers)).raise_for_status()
                job: str = answer.json()["id"]
                return job

        async def wait_for(number: int, job: str) -> dict[str, Any]:
            url = f"{webs[(number + 1) % 2]}/generations/{job}"
            while True:
                async with limit:
                    document: dict[str, Any] = (await http.get(url)).raise_for_status().json()
                if document["state"] in ENDS:
                    return document
                await asyncio.sleep(5)

        ids = await gathered((create(number) for number in range(count)), "jobs made")
        assert len(set(ids)) == count
        return await gathered((wait_for(number, job) for number, job in enumerate(ids)), "jobs ended")


def _generations(predictor: str) -> int:
    metrics = get(predictor + "/metrics").text
    found = re.findall(r"^shangcai_request_success_total\S* (\S+)$", metrics, re.MULTILINE)
    return sum(int(float(number)) for number in found)


if __name__ == "__main__":
    sys.exit(main())
