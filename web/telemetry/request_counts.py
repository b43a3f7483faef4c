"""ASGI middleware that counts requests by route, model, status and caller."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from prometheus_client import Counter
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.metrics import CALLER_NAMES, CALLER_REFUSALS, CALLER_REQUESTS, REQUESTS
from web.telemetry.name_limit import OTHER, NameLimit
from wire.telemetry.facts import current_facts

CLIENT_LEFT = "499"
"""The status class of a request whose client has left before there was an answer."""

QUOTA_EXCEEDED = 429
"""Which no other problem has."""


class RequestCounts:
    """Counts what is not sent to `quiet_paths`, by the `routes` that there are. What refuses requests has its place
    within."""

    def __init__(self, app: ASGIApp, routes: Sequence[Route], quiet_paths: Container[str] = ()) -> None:
        self.app = app
        self._quiet_paths = quiet_paths
        self._fixed = {route.path: route.path for route in routes if not route.param_convertors}
        self._others = [(route.path_regex, route.path_format) for route in routes if route.param_convertors]
        self._callers = NameLimit(CALLER_NAMES)
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._of_callers: dict[str, tuple[Counter, Counter]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else None
        if path is None or path in self._quiet_paths:
            await self.app(scope, receive, send)
            return
        facts = current_facts()
        route = self._fixed.get(path) or _matching(self._others, path)
        if facts is not None:
            facts.route = route
        status = 0

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        failed = False
        try:
            await self.app(scope, receive, counted_send)
        except Exception:
            failed = True  # the server answers with a 500, or breaks the connection off
            raise
        finally:
            status_class = f"{status // 100}xx" if status else "5xx" if failed else CLIENT_LEFT
            model = None if facts is None else facts.model
            self._count(route, model or "", status_class)
            caller = scope["state"].get("caller")
            if caller is not None:
                self._count_caller(self._callers.label(caller), refused=status == QUOTA_EXCEEDED)

    def _count(self, route: str, model: str, status_class: str) -> None:
        labels = route, model, status_class
        counter = self._counters.get(labels)
        if counter is None:
            counter = self._counters[labels] = REQUESTS.labels(*labels)
            REQUESTS.labels(route, model, "5xx")  # from 0: a rate does not see a counter that begins with its first
        counter.inc()

    def _count_caller(self, caller: str, *, refused: bool) -> None:
        counters = self._of_callers.get(caller)
        if counters is None:
            counters = self._of_callers[caller] = CALLER_REQUESTS.labels(caller), CALLER_REFUSALS.labels(caller)
        requests, refusals = counters
        requests.inc()
        if refused:
            refusals.inc()


def _matching(routes: Sequence[tuple[re.Pattern[str], str]], path: str) -> str:
    return next((route for pattern, route in routes if pattern.match(path)), OTHER)
