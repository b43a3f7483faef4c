"""The outermost middleware of both servers: it gives every request an id, times it and logs it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wire.telemetry.facts import Facts, gathered
from wire.telemetry.lines import log_request
from wire.telemetry.tracing import HEADERS, passed_on, trace_id

log = logging.getLogger(__name__)

Hops = Sequence[IPv4Network | IPv6Network]
"""The networks of proxies whose headers are believed."""

REQUEST_ID_CHARS = 128
"""Longest X-Request-Id that is taken from a client; anything else is replaced."""

TRACE_CHARS = 512
"""Longest traceparent or tracestate that is passed on (W3C asks for at least 512)."""


CALLER_HEADER = "X-Shangcai-Caller"
"""From web to its model servers: who asks."""

CACHE_SALT_HEADER = "X-Shangcai-Cache-Salt"
"""From web to its model servers: texts with the same salt may begin with what the others have left in the cache. No
field of the body, because servers that do not know it would refuse that."""

WHOLE_HEADER = "X-Shangcai-Whole"
"""From web to its model servers: "1" where nobody sees a text before its end. Between its first piece and its end none
need be sent, each of which takes both servers as long as a small model takes for a token. No field, as above."""


@dataclass(frozen=True)
class RequestContext:
    """One HTTP request: when it arrived, on the clock of `time.perf_counter`, its id and its W3C trace headers."""

    arrived: float
    request_id: str
    trace: dict[str, str]

    @classmethod
    def of(cls, scope: Scope) -> RequestContext:
        context = scope["state"]["context"]
        assert isinstance(context, cls)
        return context

    @property
    def headers(self) -> dict[str, str]:
        """Passed on to the model servers."""
        return {"X-Request-Id": self.request_id, **self.trace}


class RequestContextMiddleware:
    """Gives every request its RequestContext, and every response the request's id.

    Requests to `quiet_paths`, which are probed every few seconds, are logged at debug. The log names the client, whom
    proxies tell that are `trusted_hops`.
    """

    def __init__(self, app: ASGIApp, quiet_paths: Container[str] = (), trusted_hops: Hops = ()) -> None:
        self.app = app
        self.quiet_paths = quiet_paths
        self.trusted_hops = trusted_hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        context = RequestContext(time.perf_counter(), request_id(headers), _trace(headers))
        facts = Facts(context.request_id, context.arrived, trace_id=trace_id(context.trace))
        scope.setdefault("state", {}).update(context=context, facts=facts)
        status = 0

        async def named_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-Id"] = context.request_id
                answer["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            with gathered(facts):
                await self.app(scope, receive, named_send)
        finally:
            facts.caller = scope["state"].get("caller") or facts.caller
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            level = logging.DEBUG if path in self.quiet_paths else logging.INFO
            if log.isEnabledFor(level):  # who asked is not looked for in vain
                client = client_address(scope, self.trusted_hops)
                told = {"method": scope["method"], "path": scope["path"], "client": client}
                log_request(log, level, facts, told, status)


def request_id(headers: Mapping[str, str]) -> str:
    """The client's X-Request-Id, or a new one where it gave none that is fit for a log. Names in lower case."""
    given = headers.get("x-request-id", "")
    if 1 <= len(given) <= REQUEST_ID_CHARS and all("!" <= char <= "~" for char in given):
        return given
    return uuid.uuid4().hex


def _trace(headers: Headers) -> dict[str, str]:
    """The trace headers of what is done for this request: those that came, as far as they are fit for it, or those of
    the span that this server has begun."""
    trace = {}
    for name in HEADERS:
        value = ",".join(headers.getlist(name))
        if 1 <= len(value) <= TRACE_CHARS and all(" " <= char <= "~" for char in value):
            trace[name] = value
    return passed_on(trace)


def from_trusted_hop(scope: Scope, hops: Hops) -> bool:
    """Whether the other end of the connection is one of these."""
    return _is_trusted(_peer(scope), hops)


def client_address(scope: Scope, hops: Hops) -> str:
    """The last address on the way here that is no trusted hop; "-" where there is none, as of a unix socket.

    Each proxy adds to X-Forwarded-For whom it was asked by, so what a client has put there itself comes first.
    """
    address = _peer(scope)
    for given in reversed(",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")):
        if not _is_trusted(address, hops) or (before := _parsed(given)) is None:
            break
        address = before
    return "-" if address is None else str(address)


def _peer(scope: Scope) -> IPv4Address | IPv6Address | None:
    client = scope.get("client")
    return None if client is None else _parsed(client[0])


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with or without a port; None where it is none."""
    text = text.strip()
    bare = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    for candidate in (text, bare):
        try:
            address = ip_address(candidate)
        except ValueError:
            continue
        return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
    return None


def _is_trusted(address: IPv4Address | IPv6Address | None, hops: Hops) -> bool:
    return address is not None and any(address in hop for hop in hops)
