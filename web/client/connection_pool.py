"""HTTP/1.1 to the model servers, as a transport of httpx: connections that are kept, and h11 on each.

httpx's own pool (httpcore 1.0.9) takes 0.9 ms of CPU for a request and 0.06 ms more for each connection that is idle,
this one 0.3 ms. It also loses connections for ever when their requests are cancelled
(https://github.com/encode/httpcore/issues/658 and 1093), and closes those that are idle only when a request comes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from functools import cached_property

import h11
import httpx

HEADER_BYTES = 65_536
"""Longest header of an answer."""

UNREAD_BYTES = 262_144
"""So much of an answer is taken from a connection before its reader has asked for it, and about one piece more."""


class ConnectionPool(httpx.AsyncBaseTransport):
    """Has up to `connections` at a time; further requests wait for one. Each is kept for `keepalive_seconds` after its
    last answer. `trust` is as in httpx: how TLS servers are verified.

    A request that is cancelled, or an answer that is closed before its end, closes its connection. The time limits are
    httpx's, of each request; all but that for writing, because a whole request is handed over to the system at once.
    """

    def __init__(self, trust: ssl.SSLContext | bool, connections: int, keepalive_seconds: float) -> None:
        self._trust = trust
        self._keepalive_seconds = keepalive_seconds
        self._places = asyncio.Semaphore(connections)
        self._idle: defaultdict[tuple[str, str, int], list[_Connection]] = defaultdict(list)
        """By scheme, host and port; the one that was used last comes last."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions["timeout"]
        try:
            async with asyncio.timeout(limits["pool"]):
                await self._places.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection is free", request=request) from None
        connection: _Connection | None = None
        try:
            connection = await self._connection(request.url, limits["connect"])
            head = await connection.ask(request, limits["read"])
        except BaseException:
            self._places.release()
            if connection is not None:
                connection.close()
            raise
        return httpx.Response(
            head.status_code, headers=list(head.headers), stream=_Body(connection, limits["read"], self._take_back)
        )

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in list(connections):
                connection.close()

    async def _connection(self, url: httpx.URL, seconds: float | None) -> _Connection:
        """One that is idle, or a new one."""
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        if self._idle[origin]:
            connection = self._idle[origin].pop()
            connection.wake_up()
            return connection
        try:
            async with asyncio.timeout(seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._idle[origin]),
                    *origin[1:],
                    ssl=self._tls if url.scheme == "https" else None,
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("it takes no connection") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when it is needed: to read all authorities takes 0.1 s."""
        if isinstance(self._trust, ssl.SSLContext):
            return self._trust
        return httpx.create_ssl_context(self._trust, trust_env=False)

    def _take_back(self, connection: _Connection) -> None:
        connection.end(self._keepalive_seconds)
        self._places.release()


class _Connection(asyncio.Protocol):
    """One request at a time. It is in `idle` between two, and closed as soon as its server closes it then."""

    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, HEADER_BYTES)
        self._unread = 0
        self._over = False  # nothing comes any more
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._sleep: asyncio.TimerHandle | None = None

    # asyncio calls these.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is one
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._sleep is not None:  # nobody has asked for anything
            self.close()
            return
        self._http.receive_data(data)
        self._unread += len(data)
        if self._unread > UNREAD_BYTES:
            self._transport.pause_reading()
        self._notify()

    def eof_received(self) -> None:
        self._end_input()

    def connection_lost(self, exc: Exception | None) -> None:
        self._failure = exc
        self._end_input()
        self.close()

    # The pool and its answers call these.

    async def ask(self, request: httpx.Request, seconds: float | None) -> h11.Response:
        """Send a request; the header of its answer. `seconds`: the longest silence."""
        body = await request.aread()
        try:
            start = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            events = (start, h11.Data(data=body), h11.EndOfMessage())
            self._transport.write(b"".join(self._http.send(event) or b"" for event in events))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from None
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                await self._more(seconds)

    async def body(self, seconds: float | None) -> AsyncIterator[bytes]:
        """The body of the answer, in pieces as they have come."""
        while True:
            pieces: list[bytes] = []
            while isinstance(event := self._next_event(), h11.Data):
                pieces.append(event.data)
            self._read_on()
            if pieces:
                yield b"".join(pieces)
            if event is not h11.NEED_DATA:
                return
            await self._more(seconds)

    def end(self, keepalive_seconds: float) -> None:
        """The request is over. Kept for the next one where its answer is whole and its server keeps it, too."""
        http = self._http
        if self._over or not (http.our_state is http.their_state is h11.DONE) or http.trailing_data[0]:
            self.close()
            return
        http.start_next_cycle()
        self._sleep = self._loop.call_later(keepalive_seconds, self.close)
        self._idle.append(self)

    def wake_up(self) -> None:
        """It is no longer idle."""
        if self._sleep is not None:
            self._sleep.cancel()
            self._sleep = None

    def close(self) -> None:
        if self._sleep is not None:
            self.wake_up()
            self._idle.remove(self)
        self._transport.abort()

    # Ours.

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._failure is not None:
                raise httpx.ReadError(str(self._failure)) from None
            raise httpx.RemoteProtocolError(str(error)) from None

    async def _more(self, seconds: float | None) -> None:
        """Wait until more has come, or nothing comes any more."""
        self._waiting = self._loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiting
        except TimeoutError:
            raise httpx.ReadTimeout("it is silent") from None
        finally:
            self._waiting = None

    def _read_on(self) -> None:
        if self._unread > UNREAD_BYTES and not self._over:
            self._transport.resume_reading()
        self._unread = 0

    def _end_input(self) -> None:
        if self._over:
            return
        self._over = True
        if self._sleep is not None:
            self.close()
            return
        self._http.receive_data(b"")
        self._notify()

    def _notify(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _Body(httpx.AsyncByteStream):
    """The body of an answer; `take_back` gets the connection once, when it is closed."""

    def __init__(
        self, connection: _Connection, seconds: float | None, take_back: Callable[[_Connection], None]
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self._take_back: Callable[[_Connection], None] | None = take_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.body(self._seconds)

    async def aclose(self) -> None:
        take_back, self._take_back = self._take_back, None
        if take_back is not None:
            take_back(self._connection)
