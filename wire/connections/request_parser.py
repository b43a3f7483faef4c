"""What is taken for a request: h11's parser, with bounds of its own."""

from __future__ import annotations

import re
from collections import Counter
from http import HTTPStatus

import h11

from contract import problems
from contract.limits import BODY_CHUNK_BYTES, BODY_CHUNKS, HEADER_BYTES, HEADER_FIELDS
from contract.problems import ProblemError, invalid_field

SINGLE = {
    name.lower().encode(): name
    for name in (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
        "X-Request-Timeout",
        "X-Shangcai-Caller",
    )
}
"""Headers that have one value. Given twice, each reader on the way may believe another one. The attributes of a
CloudEvent, `ce-…`, are such headers, too."""

_DETAIL_CHARS = 200
_BLANK_LINE = re.compile(rb"\n\r?\n")  # as h11 has it
_AUTHORITY = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_REQUEST_LINE = re.compile(rb"[A-Z]+ (?:https?://[^/? ]*)?(/[!->@-~]*)(?:\?[!-~]*)? HTTP/")


class RequestParser(h11.Connection):
    """h11's, which also objects to headers that it can read. When `next_event` has raised, `problem` says why."""

    problem: ProblemError | None = None
    request: h11.Request | None = None
    """That of the current or the latest body; None while a header is read."""
    chunks = 0
    """Those of that body."""
    _line = b""
    """The first line of what is read as a header."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEADER_BYTES)

    @property
    def path(self) -> str:
        """Of `request`; empty without one."""
        return "" if self.request is None else self.request.target.partition(b"?")[0].decode("ascii")

    @property
    def announced_path(self) -> str:
        """That of a header that cannot be read, too, where its first line names one. Not to be logged: what looks like
        a header may be the rest of a body."""
        line = None if self.request else _REQUEST_LINE.match(self._line)
        return self.path if line is None else line[1].decode("ascii")

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE:
            self.request = None
            header = self.trailing_data[0]
            if header in (b"\r", b"\r\n"):  # an empty line before a request is ignored (RFC 9112, 2.2)
                return h11.NEED_DATA
            if header.startswith(b"\r\n"):
                self._receive_buffer.maybe_extract_at_most(2)
            self._line = header.lstrip(b"\r\n").partition(b"\n")[0]
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
            self.chunks += len(event.data) < BODY_CHUNK_BYTES
            if self.chunks > BODY_CHUNKS:
                self._object(
                    ProblemError(problems.BODY_TOO_LARGE, f"A body may have at most {BODY_CHUNKS} small chunks.")
                )
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
    for name, count in Counter(name for name, _ in request.headers).items():
        if count > 1 and (name in SINGLE or name.startswith(b"ce-")):
            return invalid_field(SINGLE.get(name, name.decode()), f"may be given once, not {count} times")
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
