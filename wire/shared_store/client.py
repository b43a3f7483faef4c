"""Connections to the shared store, with redis-py."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
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
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, ClusterPipeline
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, WatchError

from wire.shared_store.address import StoreAddress, parse_address

OUTAGES = (RedisError, RedisClusterException, OSError, RuntimeError)
"""What an operation raises that Redis cannot do just now. A cluster of which no node answers is no RedisError; see
`_closed_transports` for the last one."""


Observe = Callable[[str, float | None], None]
"""Told of each command, or pipeline of commands, that has ended, and its seconds; None where it has failed."""

PIPELINE = "PIPELINE"
"""What pipelines and transactions are called."""

_BLOCKING = b"BLOCK"


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


def connect(
    url: str,
    *,
    most_connections: int,
    wait_seconds: float,
    retry: Any,
    observe: Observe | None = None,
    **options: Any,
) -> Any:
    """A client; `options` are those of redis-py's connections. Commands that find none of `most_connections` free wait
    for one, `wait_seconds` at most; to a cluster there are so many for each node, and they are not waited for.
    `observe` is not told what commands take that wait in Redis for something to happen.

    Raises ValueError for a wrong `url`. The answer is Any: redis-py's annotations name the answers of every protocol
    version.
    """
    address = parse_address(url)
    observed = {"observe": observe, "answer_seconds": options.get("socket_timeout", math.inf)}
    options |= {"protocol": 2}  # version 3 has other forms of some answers
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.nodes]
        options |= {"username": address.username, "password": address.password, "ssl": address.tls}
        cluster = _Cluster(startup_nodes=nodes, max_connections=most_connections, retry=retry, **options)
        vars(cluster).update(observed)
        return cluster
    options |= {"max_connections": most_connections, "timeout": wait_seconds, "retry": retry}
    if address.kind == "sentinel":
        return _client(_sentinel_pool(address, options), observed)
    options |= dict(parse_url(address.plain))
    kind = _CONNECTIONS[options.pop("connection_class", Connection)]
    return _client(BlockingConnectionPool(connection_class=kind, **options), observed)


def _client(pool: Any, observed: dict[str, Any]) -> Any:
    client = _Client.from_pool(pool)
    vars(client).update(observed)
    return client


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


class _Observed:
    """Goes before a class of clients."""

    observe: Observe | None = None
    answer_seconds = math.inf
    """A command has failed that is cancelled after so long."""

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        command = super().execute_command(*arguments, **options)  # type: ignore[misc]
        return await self.observed(arguments[0], command, waits=_BLOCKING in arguments)

    async def observed(self, name: str, command: Awaitable[Any], *, waits: bool = False) -> Any:
        if self.observe is None:
            return await command
        begun = time.perf_counter()
        try:
            answer = await command
        except (NoScriptError, WatchError):  # which tell redis-py to load a script, and to try a transaction again
            raise
        except OUTAGES:
            self.observe(name, None)
            raise
        except asyncio.CancelledError:
            if not waits and time.perf_counter() - begun > self.answer_seconds:  # or nobody wants the answer any more
                self.observe(name, None)
            raise
        if not waits:
            self.observe(name, time.perf_counter() - begun)
        return answer


class _Client(_Observed, Redis):  # type: ignore[misc]  # redis-py's own bases disagree
    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        pipe = _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.owner = self
        return pipe


class _Cluster(_Observed, RedisCluster):  # type: ignore[misc]
    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        pipe = _ClusterPipeline(self, transaction)  # type: ignore[abstract]
        pipe.owner = self
        return pipe


class _ObservedPipeline:
    """Goes before a class of pipelines."""

    owner: _Observed

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await self.owner.observed(PIPELINE, super().execute(*arguments, **options))  # type: ignore[misc]


class _Pipeline(_ObservedPipeline, Pipeline): ...  # type: ignore[misc]


class _ClusterPipeline(_ObservedPipeline, ClusterPipeline): ...  # type: ignore[misc]


class _Tcp(_Transport, Connection): ...


class _Tls(_Transport, SSLConnection): ...


class _Unix(_Transport, UnixDomainSocketConnection): ...


class _SentinelManaged(_Transport, SentinelManagedConnection): ...


class _SentinelTls(_Transport, SentinelManagedSSLConnection): ...


_CONNECTIONS: dict[Any, Any] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}
