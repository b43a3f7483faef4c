"""HTTP/1.1 as both servers speak it: uvicorn's protocol on h11, with bounds and with problem documents.

On h11, because httptools drops the body of a request that offers to go on in HTTP/2, as the client of Java's standard
library does, answers HTTP/1.0 in chunks, and bounds no header. That costs 0.15 ms of CPU for a request and 6 µs for a
token. Here

- a header has a most of bytes, of fields and of time, and so has a connection on which nothing comes;
- what cannot be read, or is not taken, is answered with a problem document, and the connection is closed;
- a client that has shut down its side after its request gets its answer;
- an offer to switch protocols is ignored (RFC 9110, 7.8), and a WebSocket is a problem.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
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
from contract.limits import BODY_CHUNKS, HEADER_BYTES, HEADER_FIELDS, HEADER_SECONDS
from contract.problems import ProblemError
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

_DETAIL_CHARS = 200
_BLANK_LINE = re.compile(rb"\n\r?\n")  # as h11 has it
_AUTHORITY = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class HttpProtocol(H11Protocol):
    """One connection; see the module. `respond` makes the response of a path, "" where none is known, and a problem."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        respond: Callable[[str, ProblemError], Response] = lambda _path, error: problem_response(error),
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: _Connection = _Connection(h11.SERVER, HEADER_BYTES)
        self.access_log = False  # RequestContextMiddleware says more
        self.limit_concurrency = None  # uvicorn's own refusal is no problem document
        self._served_app, self.app = self.app, self._app_or_refusal
        self._respond = respond
        self._timers: dict[Callable[..., None], asyncio.TimerHandle] = {}
        self._half_closed = False
        self._refused = False
        self._discarded = 0

    # asyncio calls these.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._start(SILENT_SECONDS, self.transport.close)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            self._stop(self.transport.close)
        for start in range(0, len(data), HEADER_BYTES):  # so that h11 finds out early that something has no end
            if self._refused:
                self._discarded += HEADER_BYTES
            elif not self.transport.is_closing():
                super().data_received(data[start : start + HEADER_BYTES])
        if self._discarded > DISCARD_BYTES:
            self.transport.close()

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
        super().connection_lost(exc)

    # uvicorn calls these.

    def handle_events(self) -> None:
        super().handle_events()
        if self._refused or self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self._stop(self._time_out)
        elif self._time_out not in self._timers:
            self._unset_keepalive_if_required()
            self._start(HEADER_SECONDS, self._time_out)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self.conn.problem or ProblemError(problems.MALFORMED_REQUEST, msg))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._half_closed and not self._awaits_answer():
            self.transport.close()

    def shutdown(self) -> None:
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def _should_upgrade(self) -> bool:
        return False

    # Ours.

    def _awaits_answer(self) -> bool:
        """Whether a whole request has come whose answer has not begun."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_started

    async def _app_or_refusal(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self.config.limit_concurrency
        if most is None or (len(self.connections) < most and len(self.tasks) <= most):
            await self._run(scope, receive, send)
            return
        problem = ProblemError(problems.OVERLOADED, "The server has all the clients that it takes.", retry_after=1)
        await self._closing_response(problem, self.conn.request)(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._served_app(scope, receive, send)
        except (BrokenAnswerError, asyncio.CancelledError) as error:  # the latter at the end of a shutdown
            # Not raised: uvicorn would log a traceback.
            log.info("%s %r was broken off: %s", scope["method"], scope["path"], error)
            if not self.cycle.response_complete:
                self._refuse(ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1))

    def _closing_response(self, problem: ProblemError, request: h11.Request | None) -> Response:
        path, headers = "", Headers()
        if request is not None:
            path, headers = request.target.partition(b"?")[0].decode("ascii"), Headers(raw=list(request.headers))
        response = self._respond(path, problem)
        response.headers["Connection"] = "close"
        response.headers["X-Request-Id"] = request_id(headers)
        log.info("%r -> %d: %s, request %s", path, response.status_code, problem, response.headers["X-Request-Id"])
        return response

    def _refuse(self, problem: ProblemError) -> None:
        """Answer with the problem, unless an answer has begun, and end the connection."""
        if self.cycle is not None:  # whatever it would still receive or send
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unset_keepalive_if_required()
        if self._refused or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        self._refused = True
        request = self.conn.request
        response = self._closing_response(problem, request)
        start = h11.Response(
            status_code=response.status_code,
            headers=[*self.server_state.default_headers, *response.raw_headers],
            reason=HTTPStatus(response.status_code).phrase,
        )
        body = b"" if request is not None and request.method == b"HEAD" else bytes(response.body)
        for event in (start, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        if self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._start(DISCARD_SECONDS, self.transport.close)

    def _time_out(self) -> None:
        late = f"The header did not arrive whole within {HEADER_SECONDS:g} s."
        self._refuse(ProblemError(problems.HEADER_TIMEOUT, late))

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


class _Connection(h11.Connection):
    """h11's, which also objects to headers that it can read. When `next_event` has raised, `problem` says why."""

    problem: ProblemError | None = None
    request: h11.Request | None = None
    """That of the current or the latest body; None while a header is read."""
    chunks = 0
    """Those of that body."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE:
            self.request = None
            header = self.trailing_data[0]
            if header in (b"\r", b"\r\n"):  # an empty line before a request is ignored (RFC 9112, 2.2)
                return h11.NEED_DATA
            if header.startswith(b"\r\n"):
                self._receive_buffer.maybe_extract_at_most(2)
            if len(header) > HEADER_BYTES and not _BLANK_LINE.search(header, 0, HEADER_BYTES):
                self._object(_too_large())
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.problem = _problem(error)
            raise
        if isinstance(event, h11.Request):
            self.request = event = _in_origin_form(event)
            self.chunks = 0
            self._object(_objection(event))
        elif isinstance(event, h11.Data):
            self.chunks += 1
            if self.chunks > BODY_CHUNKS:
                self._object(ProblemError(problems.BODY_TOO_LARGE, f"A body may have at most {BODY_CHUNKS} chunks."))
        return event

    def _object(self, problem: ProblemError | None) -> None:
        if problem is not None:
            self.problem = problem
            raise h11.RemoteProtocolError(str(problem))


def _problem(error: h11.RemoteProtocolError) -> ProblemError:
    match error.error_status_hint:
        case HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return _too_large()
        case HTTPStatus.NOT_IMPLEMENTED:
            return ProblemError(problems.NOT_IMPLEMENTED, f"{error}.")
    why = re.sub(r"bytearray\(b(.*)\)", r"\1", str(error))[:_DETAIL_CHARS]
    return ProblemError(problems.MALFORMED_REQUEST, f"The request cannot be read: {why}.")


def _objection(request: h11.Request) -> ProblemError | None:
    headers = dict(request.headers)
    if len(request.headers) > HEADER_FIELDS:
        return _too_large()
    if request.http_version not in (b"1.1", b"1.0"):
        return ProblemError(problems.MALFORMED_REQUEST, "The request is not of HTTP/1.1.")
    if b"content-length" in headers and b"transfer-encoding" in headers:  # some proxy may have read another request
        return ProblemError(problems.MALFORMED_REQUEST, "The request has Content-Length and Transfer-Encoding.")
    if headers.get(b"upgrade", b"").lower() == b"websocket":
        return ProblemError(problems.NOT_IMPLEMENTED, "No WebSocket is served here; streams are server-sent events.")
    return None


def _in_origin_form(request: h11.Request) -> h11.Request:
    """With a path as its target; it may come with the whole URL (RFC 9112, 3.2.2)."""
    authority = _AUTHORITY.match(request.target)
    if authority is None:
        return request
    target = request.target[authority.end() :]
    return h11.Request(
        method=request.method,
        headers=list(request.headers),
        target=target if target.startswith(b"/") else b"/" + target,
        http_version=request.http_version,
    )


def _too_large() -> ProblemError:
    most = f"The request line and the header may have at most {HEADER_BYTES} bytes and {HEADER_FIELDS} fields."
    return ProblemError(problems.HEADER_TOO_LARGE, most)
