"""Connections to the shared store, with redis-py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    RedisCluster,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from wire.shared_store.address import StoreAddress, parse_address

OUTAGES = (RedisError, RedisClusterException, OSError, RuntimeError)
"""What an operation raises that Redis cannot do just now. A cluster of which no node answers is no RedisError; see
`_closed_transports` for the last one."""


def reason(error: Exception) -> str:
    """What an error says, for the log: without the command, which redis-py quotes and which may hold a prompt."""
    return str(error).rpartition("of pipeline caused error: ")[2] or type(error).__name__


@contextmanager
def kept_cancellations() -> Iterator[None]:
    """Around commands. redis-py sends with `asyncio.wait_for`. On Python 3.11 that loses a cancellation which comes
    just when the sending has finished (python/cpython#86296, fixed in 3.12), and a task that was cancelled would go on
    for ever."""
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    yield
    if task.cancelling() > cancelled:
        raise asyncio.CancelledError


def connect(url: str, *, most_connections: int, wait_seconds: float, retry: Any, **options: Any) -> Any:
    """A client; `options` are those of redis-py's connections. Commands that find none of `most_connections` free wait
    for one, `wait_seconds` at most; to a cluster there are so many for each node, and they are not waited for.

    Raises ValueError for a wrong `url`. The answer is Any: redis-py's annotations name the answers of every protocol
    version.
    """
    address = parse_address(url)
    options |= {"protocol": 2}  # version 3 has other forms of some answers
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.nodes]
        options |= {"username": address.username, "password": address.password, "ssl": address.tls}
        return RedisCluster(startup_nodes=nodes, max_connections=most_connections, retry=retry, **options)
    options |= {"max_connections": most_connections, "timeout": wait_seconds, "retry": retry}
    if address.kind == "sentinel":
        return Redis.from_pool(_sentinel_pool(address, options))
    options |= dict(parse_url(address.plain))
    kind = _CONNECTIONS[options.pop("connection_class", Connection)]
    return Redis.from_pool(BlockingConnectionPool(connection_class=kind, **options))


def _sentinel_pool(address: StoreAddress, options: dict[str, Any]) -> Any:
    sockets = {name: value for name, value in options.items() if name.startswith("socket_")}
    sentinels: Any = Sentinel  # neither is annotated
    pool: Any = _BlockingSentinelPool
    sentinel = sentinels(
        address.nodes, sentinel_kwargs={**sockets, "password": address.sentinel_password, "ssl": address.tls}
    )
    return pool(
        address.service,
        sentinel,
        connection_class=_SentinelTls if address.tls else _SentinelManaged,
        db=address.database,
        username=address.username,
        password=address.password,
        **options,
    )


class _BlockingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Asks the sentinels for the master whenever it connects."""


@contextmanager
def _closed_transports() -> Iterator[None]:
    """A connection that its server closes while a command is being sent, as one that refuses its clients does, makes
    uvloop raise RuntimeError, which nobody takes for an outage (MagicStack/uvloop#506)."""
    try:
        yield
    except RuntimeError as error:
        raise RedisConnectionError(str(error)) from error


class _Transport:
    """Goes before a class of connections."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> Any:
        with _closed_transports():
            return await super().send_packed_command(*arguments, **options)  # type: ignore[misc]

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        with _closed_transports():
            return await super().read_response(*arguments, **options)  # type: ignore[misc]

    async def can_read_destructive(self, *arguments: Any, **options: Any) -> Any:
        with _closed_transports():
            return await super().can_read_destructive(*arguments, **options)  # type: ignore[misc]


class _Tcp(_Transport, Connection): ...


class _Tls(_Transport, SSLConnection): ...


class _Unix(_Transport, UnixDomainSocketConnection): ...


class _SentinelManaged(_Transport, SentinelManagedConnection): ...


class _SentinelTls(_Transport, SentinelManagedSSLConnection): ...


_CONNECTIONS: dict[Any, Any] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}
