"""Sends requests and takes their times, in a process of its own: what it costs is not to slow down who compares.

`python -m scripts.benchmarks.peers.load` reads a `Load` from stdin as JSON and prints a `Measured`. It speaks HTTP/1.1
over asyncio's streams itself, because an HTTP library takes more of a core than a server of small texts does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from scripts.loopback import HOST
from scripts.project import ROOT


@dataclass(frozen=True)
class Load:
    """JSON bodies to post to a path, by so many clients at once. Each client has one connection and waits for its
    answer before it sends again."""

    port: int
    path: str
    bodies: list[dict[str, Any]]
    clients: int


@dataclass(frozen=True)
class Measured:
    """Seconds of all together, with all connections open before; seconds of each request; answers in order."""

    seconds: float
    each: list[float]
    answers: list[Any]


class LoadError(Exception):
    """A connection broke, or an answer was no success."""


def measure(load: Load) -> Measured:
    """Send it from a process of its own. Raises a LoadError."""
    command = [sys.executable, "-m", "scripts.benchmarks.peers.load"]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(asdict(load)), capture_output=True, text=True, process_group=0
    )
    if done.returncode:
        raise LoadError(done.stderr)
    return Measured(**json.loads(done.stdout))


async def send(load: Load) -> Measured:
    """Raises an OSError or an EOFError where a connection breaks, a LoadError for an answer that is no success."""
    each = [0.0] * len(load.bodies)
    answers: list[Any] = [None] * len(load.bodies)
    waiting = iter(enumerate(load.bodies))
    connections = [await asyncio.open_connection(HOST, load.port) for _ in range(load.clients)]
    begun = time.perf_counter()
    await asyncio.gather(*(_take_turns(load.path, waiting, each, answers, *one) for one in connections))
    seconds = time.perf_counter() - begun
    for _, writer in connections:
        writer.close()
    return Measured(seconds, each, answers)


async def _take_turns(
    path: str,
    waiting: Iterator[tuple[int, dict[str, Any]]],
    each: list[float],
    answers: list[Any],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    for number, body in waiting:
        content = json.dumps(body).encode()
        begun = time.perf_counter()
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: "
        writer.write(f"{head}{len(content)}\r\n\r\n".encode() + content)
        answers[number] = json.loads(await _read_answer(reader))
        each[number] = time.perf_counter() - begun


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    """The body of one answer; its length is told, or it comes in chunks."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    status = int(lines[0].split()[1])
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers["content-length"]))
    if not 200 <= status < 300:
        raise LoadError(f"{status}: {body[:500].decode(errors='replace')}")
    return body


if __name__ == "__main__":
    try:
        measured = asyncio.run(send(Load(**json.load(sys.stdin))))
    except (OSError, EOFError, LoadError) as error:
        sys.exit(str(error))
    print(json.dumps(asdict(measured)))
