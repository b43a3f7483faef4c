"""A collector of traces that throws them away: `python -m scripts.benchmarks.telemetry.collector PORT`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from scripts.loopback import HOST

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The documents of one connection."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
            await reader.readexactly(int(length.partition(":")[2]))
            writer.write(ANSWER)
    writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(take, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
