"""HTTP/1.1 as both servers speak it: uvicorn's protocol on h11, with bounds and with problem documents.

On h11, because httptools drops the body of a request that offers to go on in HTTP/2, as the client of Java's standard
library does, answers HTTP/1.0 in chunks, and bounds no header. That costs 0.15 ms of CPU for a request and 6 µs for a
token. Here

- a header has a most of bytes, of fields and of time, and so has a connection on which nothing comes;
- what cannot be read, or is not taken, is answered with a problem document, and the connection is closed;
- of an answer not more is written than the client reads, and a client that does not read, or too slowly, is cut off;
- a client that has shut down its side after its request gets its answer;
- an offer to switch protocols is ignored (RFC 9110, 7.8), and a WebSocket is a problem.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from http import HTTPStatus
from typing import Any

import h11
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from contract import problems
from contract.limits import HEADER_BYTES, HEADER_SECONDS
from contract.problems import ProblemError
from wire.connections.answer_sender import AnswerBudget, AnswerSender
from wire.connections.connection_limit import ConnectionLimit
from wire.connections.request_parser import RequestParser
from wire.problems import problem_response
from wire.request_context import request_id
from wire.request_guard import BrokenAnswerError

log = logging.getLogger(__name__)

SILENT_SECONDS = 60.0
"""How long a connection is kept on which nothing has come yet."""

DISCARD_SECONDS = 2.0
"""After a refusal, how long what the client still sends is read and thrown away. A connection that is closed over
unread data is reset, and the reset can destroy the answer on its way."""

DISCARD_BYTES = 1_048_576
"""Most that is read of it."""

FIRST_PROBE_SECONDS, PROBE_SECONDS = 0.01, 1.0
"""Between two probes whether a client that has shut down its side is still there: at first, and at most."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection, and throws away what is not sent."""

_BUDGET = AnswerBudget()
"""Of servers without one of their own."""


class HttpProtocol(H11Protocol):
    """One connection; see the module.

    `respond` makes the response of a path, the root path alone where none is known, and a problem.
    The `limit` and the `budget` are the server's.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        respond: Callable[[str, ProblemError], Response] = lambda _path, error: problem_response(error),
        limit: ConnectionLimit | None = None,
        budget: AnswerBudget | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: RequestParser = RequestParser()
        self.access_log = False  # RequestContextMiddleware says more
        self._served_app, self.app = self.app, self._app_or_refusal
        self._respond = respond
        self._limit = limit or ConnectionLimit(sys.maxsize)
        self._budget = budget or _BUDGET
        self._timers: dict[Callable[..., None], asyncio.TimerHandle] = {}
        self._half_closed = False
        self._refused = False
        self._discarded = 0

    # asyncio calls these.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._limit.opened(self)
        self._start(SILENT_SECONDS, self._close)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            self._stop(self._close)
        for start in range(0, len(data), HEADER_BYTES):  # so that h11 finds out early that something has no end
            if self._refused:
                self._discarded += HEADER_BYTES
            elif not self.transport.is_closing():
                super().data_received(data[start : start + HEADER_BYTES])
        if self._discarded > DISCARD_BYTES:
            self._close()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's never keeps the connection
        """Keep it while a whole request waits for its answer.

        A client that has shut down its side looks like one that has left: probes tell the two apart. Within an answer
        there can be no probe, and the client is taken to have left.
        """
        if not self._half_closed and self._awaits_answer():  # told again whenever reading goes on
            self._half_closed = True
            self._probe(FIRST_PROBE_SECONDS)
        return self._half_closed

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._limit.closed(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start(self._budget.seconds, self.give_up)

    def resume_writing(self) -> None:
        self._stop(self.give_up)
        super().resume_writing()

    # uvicorn calls these.

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete and not self._refused:
            self._limit.begun(self)
        if self._refused or self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self._stop(self._time_out)
        elif self._time_out not in self._timers:
            self._unset_keepalive_if_required()
            self._start(HEADER_SECONDS, self._time_out)

    def send_400_response(self, msg: str) -> None:
        self.refuse(self.conn.problem or ProblemError(problems.MALFORMED_REQUEST, msg))

    def on_response_complete(self) -> None:
        self._expect_all_read()
        self._limit.ended(self)
        super().on_response_complete()
        if self._half_closed and not self._awaits_answer():
            self._close()

    def shutdown(self) -> None:
        if self._refused:
            self._close()
        else:
            super().shutdown()

    def _should_upgrade(self) -> bool:
        return False

    # Ours.

    def _awaits_answer(self) -> bool:
        """Whether a whole request has come whose answer has not begun."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_started

    async def _app_or_refusal(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._limit.takes(scope["path"].removeprefix(scope["root_path"])):
            await self._run(scope, receive, send)
        else:
            full = "The server has all the clients that it takes."
            self.refuse(ProblemError(problems.OVERLOADED, full, retry_after=1))

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = AnswerSender(self, send, self._budget)
        try:
            await self._served_app(scope, receive, sender)
        except (BrokenAnswerError, asyncio.CancelledError) as error:  # the latter at the end of a shutdown
            # Not raised: uvicorn would log a traceback.
            log.info("%s %r was broken off: %s", scope["method"], scope["path"], error)
            if not self.cycle.response_complete:
                self.refuse(ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1))
        finally:
            sender.close()

    async def all_read(self) -> None:
        await self.flow.drain()
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()

    def _expect_all_read(self) -> None:
        """Count what is still to be read as refused; uvicorn counts an answer as sent when it is buffered."""
        self.transport.set_write_buffer_limits(high=0)  # calls `pause_writing` if there is anything

    def abort(self) -> None:
        """Close the connection at once, with what the client has not read yet."""
        self._disconnect_cycle()
        self.transport.abort()

    def give_up(self) -> None:
        log.info("499 %r: the client does not read what is sent to it", self.conn.path)
        with suppress(OSError):  # else the kernel would keep, for minutes, what it has still to send
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.abort()

    def _close(self) -> None:
        """Close the connection once the client has read what was written."""
        if not self.transport.is_closing():
            self._expect_all_read()
            self.transport.close()

    def _disconnect_cycle(self) -> None:
        """End whatever the application would still receive or send."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _closing_response(self, problem: ProblemError) -> Response:
        path = self.conn.path
        headers = Headers() if self.conn.request is None else Headers(raw=list(self.conn.request.headers))
        # In a context of its own: this one may be that of an earlier request, whose problem it is not.
        response = Context().run(self._respond, self.root_path + self.conn.announced_path, problem)
        response.headers["Connection"] = "close"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Request-Id"] = request_id(headers)
        name = response.headers["X-Request-Id"]
        log.info("%r -> %d %s, request %s", path, response.status_code, problem.kind.slug, name)
        log.debug("%s, request %s", problem, name)  # may quote what was sent
        return response

    def refuse(self, problem: ProblemError) -> None:
        """Answer with the problem, unless an answer has begun, and end the connection."""
        self._disconnect_cycle()
        self._unset_keepalive_if_required()
        if self._refused or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._close()
            return
        self._refused = True
        self._limit.ended(self)
        request = self.conn.request
        response = self._closing_response(problem)
        start = h11.Response(
            status_code=response.status_code,
            headers=[*self.server_state.default_headers, *response.raw_headers],
            reason=HTTPStatus(response.status_code).phrase,
        )
        body = b"" if request is not None and request.method == b"HEAD" else bytes(response.body)
        for event in (start, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        if self._half_closed or not self.transport.can_write_eof():
            self._close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._start(DISCARD_SECONDS, self._close)

    def _time_out(self) -> None:
        late = f"The header did not arrive whole within {HEADER_SECONDS:g} s."
        self.refuse(ProblemError(problems.HEADER_TIMEOUT, late))

    def _probe(self, seconds: float) -> None:
        """Send an interim response, again and again. A client that has left resets the connection."""
        http10 = self.conn.their_http_version == b"1.0"  # to which no interim response may be sent
        if self.conn.our_state is h11.SEND_RESPONSE and not http10:
            interim = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[], reason="Continue")
            self.transport.write(self.conn.send(interim))
        self._start(seconds, self._probe, min(2 * seconds, PROBE_SECONDS))

    def _start(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> None:
        self._stop(callback)
        self._timers[callback] = self.loop.call_later(seconds, callback, *arguments)

    def _stop(self, callback: Callable[..., None]) -> None:
        if timer := self._timers.pop(callback, None):
            timer.cancel()
