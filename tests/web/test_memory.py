"""What a whole web process takes of memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.support.processes import ROOT
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and other allocators have ways of their own"),
]

MIB = 2**20
LONGEST_PROMPT = 32_768 * "🙂"


class Web:
    """A web process in front of a model server that is not there, and a client of it."""

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "web"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "MODELS": json.dumps({"poet": "http://127.0.0.1:9"}),
                "HOST": "127.0.0.1",
                "PORT": str(port),
            },
            stderr=subprocess.DEVNULL,
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)

    @property
    def resident_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def submit(self, prompt: str) -> str | None:
        """The address of the new job; None where it is refused because the store is full."""
        answer = self.client.post("/generate", json={"prompt": prompt}, headers={"Prefer": "respond-async"})
        assert answer.status_code in (202, 503), answer.text
        assert answer.status_code == 202 or answer.headers["Retry-After"]
        location: str | None = answer.headers.get("Location")
        return location

    def cancel(self, job: str) -> None:
        assert self.client.delete(job).json()["state"] == "cancelled"


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    web = Web(port)

    def answers() -> bool:
        try:
            return web.client.get("/healthz").is_success
        except httpx.ConnectError:
            assert web.process.poll() is None
            return False

    try:
        wait_until(answers, seconds=60)
        yield web
    finally:
        web.client.close()
        web.process.kill()
        web.process.wait()


def test_memory_of_cancelled_jobs_is_given_back(web: Web) -> None:
    """1,800 jobs with prompts of 32,768 emoji left 766 MB in a process, and then 570 MiB."""
    web.cancel(web.submit("x") or "")
    before = web.resident_bytes
    cancelled = most = 0
    while cancelled < 1_800:
        jobs = []
        while (job := web.submit(LONGEST_PROMPT)) is not None:
            jobs.append(job)
        most = max(most, web.resident_bytes)
        for job in jobs:
            web.cancel(job)
        assert jobs
        cancelled += len(jobs)
    assert most - before < 320 * MIB
    assert web.resident_bytes - before < 64 * MIB
