"""Order more pictures as jobs than a small Redis holds. Exits with 0 if what does not fit is refused or fails with a
clear problem, nothing is generated twice, and web takes jobs again once there is room.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any

import httpx2

from scripts.benchmarks.servers import start_server
from scripts.loopback_http import async_client, get
from scripts.progress import gathered
from scripts.reliability.alerts.watch import add_prometheus_flag, watching
from scripts.reliability.deployment import redis_server, stub_models

CLIENTS = 8
ENDS = {"completed", "failed", "cancelled"}
CLEAR = {"overloaded", "unavailable", "store-full", "insufficient-storage"}
"""Problems that say what is the matter."""

MAY_FIRE = {"ShangcaiStoreNearlyFull", "ShangcaiStoreFails", "ShangcaiRequestsFail"}
"""Alerts: the Redis is full, and then jobs are refused."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos full-store", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--picture-bytes", type=int, default=2_500_000)
    parser.add_argument("--redis", default="64mb", help="maxmemory of the Redis")
    parser.add_argument("--budget", type=int, help="STORE_BYTES of web; its default when left out")
    add_prometheus_flag(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        store = stack.enter_context(redis_server(maxmemory=arguments.redis))
        model = stack.enter_context(stub_models())
        flags = ["--models", json.dumps({"painter": {"url": model, "kind": "image"}}), "--store-url", store]
        flags += ["--store-bytes", str(arguments.budget)] if arguments.budget else []
        web = stack.enter_context(start_server("web", [*flags, "--idle-seconds", "0"], "/healthz"))
        watch = stack.enter_context(watching(arguments.prometheus, [web], expected=MAY_FIRE))
        outcomes = asyncio.run(_order(web.url, arguments.jobs, arguments.picture_bytes))
        generated: dict[str, int] = get(model + "/counts").json()
    again = {seed: count for seed, count in generated.items() if count > 1}
    print(f"{arguments.jobs} pictures of {arguments.picture_bytes:,} bytes, Redis of {arguments.redis}:")
    for outcome, count in sorted(outcomes.items()):
        print(f"  {count:4} {outcome}")
    print(f"generated: {sum(generated.values())}; more than once: {len(again)}")
    good = not again and all(outcome in {"completed", "forgotten"} | CLEAR for outcome in outcomes) and watch.good
    print("all is said, nothing is made twice" if good else "NOT as it should be")
    return 0 if good else 1


async def _order(web: str, count: int, size: int) -> Counter[str]:
    """What became of each: its state, or the name of the problem."""
    async with async_client(timeout=120) as http:
        limit = asyncio.Semaphore(CLIENTS)

        async def order(seed: int) -> str:
            async with limit:
                body = {"prompt": str(size), "kind": "image", "seed": seed}
                answer = await http.post(web + "/generate", json=body, headers={"Prefer": "respond-async"})
                while answer.status_code == 200 or answer.status_code == 202:
                    document: dict[str, Any] = answer.json()
                    if document["state"] in ENDS:
                        return _outcome(document)
                    await asyncio.sleep(0.2)
                    answer = await http.get(f"{web}/generations/{document['id']}")
                if answer.status_code == httpx2.codes.NOT_FOUND:  # the oldest ended ones make room
                    return "forgotten"
                return _problem(answer.json())

        return Counter(await gathered(map(order, range(count)), "pictures"))


def _outcome(document: dict[str, Any]) -> str:
    return "completed" if document["state"] == "completed" else _problem(document["error"])


def _problem(problem: dict[str, Any]) -> str:
    kind: str = problem["type"]
    return kind.rpartition(":")[2]


if __name__ == "__main__":
    sys.exit(main())
