"""A replica that is killed in the middle of a delivery: another one makes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from tests.support.processes import ROOT, listening
from tests.support.waiting import eventually
from tests.support.web.webhook_receiver import SECRET, Receiver, answer, silence

pytestmark = pytest.mark.slow

Receive = Callable[..., Awaitable[Receiver]]
Serve = Callable[..., Awaitable[str]]
Replica = tuple["subprocess.Popen[str]", str]

LIMIT = 20.0


@pytest.fixture
def start() -> Iterator[Callable[..., Replica]]:
    """Starts a replica of web; its process and its address."""
    processes: list[subprocess.Popen[str]] = []

    def start(upstream: str, store: str, **environment: str) -> Replica:
        process = subprocess.Popen(
            [sys.executable, "-m", "web", "--host", "127.0.0.1", "--port", "0"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "MODELS": json.dumps({"poet": upstream}),
                "STORE_URL": store,
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process, listening(process)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def test_it_is_delivered_by_another_replica(
    start: Callable[..., Replica], receiver: Receive, redis_url: str
) -> None:
    there = await receiver(silence, answer(204))
    environment = {
        "WEBHOOK_HOSTS": json.dumps([there.host]),
        "WEBHOOK_SECRET": SECRET,
        "WEBHOOK_SECONDS": "1",
        "JOB_SECONDS": "30",
    }
    killed, url = start("http://127.0.0.1:9", redis_url, **environment)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=LIMIT) as client:
        body = {"prompt": "x", "webhook": there.url}
        answered = await client.post("/generate", json=body, headers={"Prefer": "respond-async"})
        location = answered.headers["location"]
        await client.delete(location)  # which is an end, too
    await there.has_received(1)
    killed.send_signal(signal.SIGKILL)
    _, url = start("http://127.0.0.1:9", redis_url, **environment)
    await eventually(lambda: len(there.received) >= 2, "another delivery", LIMIT)
    first, second = there.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.verified()["subject"] == location.rpartition("/")[2]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=LIMIT) as client:

        async def delivered() -> bool:
            return bool((await client.get(location)).json()["webhook"]["delivered"])

        await eventually(delivered, "it is noted", LIMIT)
