"""What a whole web process takes of memory."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx2
import pytest

from contract.limits import IMAGE_BYTES
from tests.support.processes import ROOT, free_port
from tests.support.waiting import wait_until
from web.settings import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and other allocators have ways of their own"),
]

StartWeb = Callable[..., "Web"]
Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RawServer = Callable[[Connection], Awaitable[str]]

MIB = 2**20
LONGEST_PROMPT = 32_768 * "🙂"


class Web:
    """A web process in front of this model server, and a client of it."""

    def __init__(self, port: int, **model: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "web"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "MODELS": json.dumps({"model": model}),
                "IDLE_SECONDS": "0",  # it never sleeps
                "HOST": "127.0.0.1",
                "PORT": str(port),
            },
            stderr=subprocess.DEVNULL,
        )
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)

    @property
    def resident_bytes(self) -> int:
        return self._bytes("VmRSS")

    @property
    def most_resident_bytes(self) -> int:
        """Since it has started."""
        return self._bytes("VmHWM")

    def _bytes(self, name: str) -> int:
        with open(f"/proc/{self.process.pid}/status") as file:
            [line] = [line for line in file if line.startswith(name)]
        return int(line.split()[1]) * 1_024

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
def start_web() -> Iterator[StartWeb]:
    started = []

    def start(**model: str) -> Web:
        web = Web(free_port(), **model)
        started.append(web)

        def answers() -> bool:
            try:
                return web.client.get("/healthz").is_success
            except httpx2.ConnectError:
                assert web.process.poll() is None
                return False

        wait_until(answers)
        return web

    yield start
    for web in started:
        web.client.close()
        web.process.kill()
        web.process.wait()


def test_memory_of_cancelled_jobs_is_given_back(start_web: StartWeb) -> None:
    """1,800 jobs with prompts of 32,768 emoji left 570 MiB in a process."""
    web = start_web(url="http://127.0.0.1:9")
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


NOISE = base64.b64encode(os.urandom(12_500_000))
"""A picture of 2048x2048 pixels that does not compress."""

COMPLETED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'data: {"type":"image_generation.completed","output_format":"png","size":"2048x2048","b64_json":"'
    + NOISE
    + b'"}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize("form", ["application/json", "image/png", "text/event-stream"])
async def test_pictures_of_many_clients_fit_into_a_pod(start_web: StartWeb, raw_server: RawServer, form: str) -> None:
    """40 at once took 1,293, 940 and 1,404 MiB."""

    async def paint(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(COMPLETED)
        await writer.drain()
        writer.close()

    web = await asyncio.to_thread(start_web, url=await raw_server(paint), kind="image")
    before = web.resident_bytes
    request = {"prompt": "x", "size": "2048x2048", "stream": form == "text/event-stream"}
    async with httpx2.AsyncClient(base_url=web.client.base_url, trust_env=False, timeout=120) as client:

        async def ask() -> tuple[int, int]:
            async with client.stream("POST", "/generate", json=request, headers={"Accept": form}) as answer:
                assert answer.status_code == 200 or answer.headers["Retry-After"]
                return answer.status_code, sum([len(part) async for part in answer.aiter_raw()])

        answers = await asyncio.gather(*(ask() for _ in range(40)))
    assert {status for status, _ in answers} <= {200, 503}
    assert Counter(size > 12_000_000 for _, size in answers)[True] >= 4
    assert web.most_resident_bytes - before < 3 * Settings.model_fields["picture_bytes"].default


SMALL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'data: {"type":"image_edit.completed","output_format":"png","size":"8x8","b64_json":"iVBORw0K"}\n\n'
    b"data: [DONE]\n\n"
)


async def test_pictures_that_many_clients_send_in_fit_into_a_pod(start_web: StartWeb, raw_server: RawServer) -> None:
    """Twelve megabytes each: two at a time, and the others come again."""

    async def paint(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SMALL)
        await writer.drain()
        writer.close()

    web = await asyncio.to_thread(start_web, url=await raw_server(paint), kind="image")
    largest = "data:image/webp;base64,UklG" + "A" * (IMAGE_BYTES // 3 * 4 - 4)
    body = json.dumps({"prompt": "x", "size": "8x8", "image": largest, "mask": largest}).encode()
    async with httpx2.AsyncClient(base_url=web.client.base_url, trust_env=False, timeout=120) as client:

        async def send() -> None:
            async with asyncio.timeout(100):
                while True:
                    answer = await client.post("/generate", content=body, headers={"Content-Type": "application/json"})
                    if answer.status_code == 200:
                        return
                    assert answer.status_code == 503, answer.text
                    assert answer.headers["Retry-After"]

        await asyncio.gather(*(send() for _ in range(8)))
    assert web.most_resident_bytes < 320 * MIB
