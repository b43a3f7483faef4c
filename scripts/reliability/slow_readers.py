"""200 clients that read nothing and 20 that read a byte a second ask web for a picture, again and again, beside others.
Exits with 0 if web's memory stays bounded, and the others wait no longer than beside as many that read at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress

import httpx2

from scripts.benchmarks.servers import Server, start_server
from scripts.loopback_http import async_client
from scripts.reliability.alerts.watch import add_prometheus_flag, watching
from scripts.reliability.deployment import stub_models

PICTURE_BYTES = 1_500_000
GROWTH_BYTES = 150_000_000
"""Most growth of web's memory: half as much again as its PICTURE_BYTES."""

OTHERS = 4
"""Clients that read."""

OTHERS_PAUSE_SECONDS = 0.02
MOST_RATIO = 1.5
"""Of the times that the others wait; what comes and goes on the machine is in it."""

QUICK_BYTES = 65_536
ARRIVAL_SECONDS = 0.05
"""Between two slow clients, at first."""

COME_AGAIN_SECONDS = 30.0
"""After a slow client was cut off: so that reading slowly is measured, and not asking often."""

ESTABLISHED = b"\x01"
"""How TCP_INFO begins while a connection is open."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos slow-readers", description=__doc__)
    parser.add_argument("--silent", type=int, default=200, help="clients that read nothing")
    parser.add_argument("--dripping", type=int, default=20, help="clients that read a byte a second")
    parser.add_argument("--seconds", type=float, default=60, help="with slow clients, and half of it before and after")
    add_prometheus_flag(parser)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        model = stack.enter_context(stub_models())
        models = {"poet": model, "painter": {"url": model, "kind": "image"}}
        flags = ["--models", json.dumps(models), "--idle-seconds", "0"]
        web = stack.enter_context(start_server("web", flags, "/healthz"))
        watch = stack.enter_context(watching(arguments.prometheus, [web]))
        status = asyncio.run(_measure(web, arguments.silent, arguments.dripping, arguments.seconds))
    return status if watch.good else 1


async def _measure(web: Server, silent: int, dripping: int, seconds: float) -> int:
    async with async_client() as http:
        order = {"model": "painter", "prompt": str(PICTURE_BYTES)}
        ordered = await http.post(f"{web.url}/generate", json=order, headers={"Prefer": "wait=60"})
        picture = ordered.raise_for_status().headers["Location"]
    quick = [QUICK_BYTES] * (silent + dripping)
    before, _ = await _beside(web, picture, quick, seconds / 2)
    held = web.resident_bytes
    peak = asyncio.create_task(_peak(web))
    during, ends = await _beside(web, picture, [0] * silent + [1] * dripping, seconds)
    peak.cancel()
    after, _ = await _beside(web, picture, quick, seconds / 2)
    left = web.resident_bytes - held
    usual = statistics.quantiles([*before, *after], n=100)
    then = statistics.quantiles(during, n=100)
    growth = max(_peaks) - held
    ratio = then[98] / usual[98]
    print(f"{silent} clients that read nothing, {dripping} that read a byte a second, {seconds:g} s: {ends} cut off")
    print(
        f"memory of web: {held / 1e6:.0f} MB, {growth / 1e6:+.0f} MB at most, {(left - held) / 1e6:+.0f} MB in the end"
    )
    print(f"others, beside as many that read at once: p50 {usual[49] * 1e3:.1f} ms, p99 {usual[98] * 1e3:.1f} ms")
    print(f"others, beside those: p50 {then[49] * 1e3:.1f} ms, p99 {then[98] * 1e3:.1f} ms ({ratio:.2f} times)")
    return 0 if growth < GROWTH_BYTES and ratio < MOST_RATIO else 1


async def _beside(web: Server, picture: str, counts: list[int], seconds: float) -> tuple[list[float], int]:
    """How long the requests of others take beside clients that read so many bytes a second, and how often these end."""
    ends: Counter[int] = Counter()
    readers = [
        asyncio.create_task(_read(web.url, picture, number * ARRIVAL_SECONDS, count, ends))
        for number, count in enumerate(counts)
    ]
    took = await _others(web, seconds)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    return took, ends.total()


_peaks: list[int] = []


async def _peak(web: Server) -> None:
    while True:
        _peaks.append(web.resident_bytes)
        await asyncio.sleep(0.1)


async def _others(web: Server, seconds: float) -> list[float]:
    """How long each of their requests took."""
    took: list[float] = []
    end = time.monotonic() + seconds

    async def ask(http: httpx2.AsyncClient) -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            body = {"prompt": "moon", "max_tokens": 2, "temperature": 0.0}
            (await http.post(f"{web.url}/generate", json=body)).raise_for_status()
            took.append(time.monotonic() - begun)
            await asyncio.sleep(OTHERS_PAUSE_SECONDS)

    async with async_client() as http:
        await asyncio.gather(*(ask(http) for _ in range(OTHERS)))
    return took


async def _read(url: str, path: str, delay: float, count: int, ends: Counter[int]) -> None:
    """Ask for the picture, and read `count` bytes a second until the server closes the connection; again and again."""
    await asyncio.sleep(delay)
    address = httpx2.URL(url)
    loop = asyncio.get_running_loop()
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: image/png\r\n\r\n"
    while True:
        with socket.socket() as client:
            if count < QUICK_BYTES:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, (address.host, address.port))
            await loop.sock_sendall(client, head.encode())
            await _end(client, count)
            ends[count] += 1
        await asyncio.sleep(COME_AGAIN_SECONDS)


async def _end(client: socket.socket, count: int) -> None:
    """The end of the connection, which who does not read finds out by its state."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        if count:
            while await loop.sock_recv(client, count):  # noqa: ASYNC110
                await asyncio.sleep(0 if count >= QUICK_BYTES else 1)
        while client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == ESTABLISHED:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
