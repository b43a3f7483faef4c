"""`GET /healthz`: whether this process should live on. `GET /readyz`: whether requests should come to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract import ProblemError, problems
from web.jobs.backend import sink_missing
from web.jobs.background_loops import BackgroundLoops
from wire.drain import Drain

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

PATHS = ("/healthz", "/readyz")
"""Probed every few seconds: without a key, beyond all limits, and silently."""

QUIET_PATHS = (*PATHS, "/status")
"""What is asked every second or so, and not worth a line in the log or a trace each time."""


class HealthEndpoints:
    """They ask nobody: an outage of the store or of a model is no reason to start this process anew, nor to send its
    requests elsewhere, where they would meet the same."""

    def __init__(self, settings: Settings, background: BackgroundLoops, drain: Drain) -> None:
        self._settings = settings
        self._background = background
        self._drain = drain

    async def live(self, _http_request: Request) -> Response:
        """STALLED where a loop in the background does not go round any more."""
        self._check_stalled()
        return JSONResponse({"status": "ok"})

    async def ready(self, _http_request: Request) -> Response:
        """UNAVAILABLE where requests would be refused: in a drain, or without a sink. STALLED where a loop does not go
        round, or fails again and again.

        A server that drains still answers what it has accepted, and its listening socket is closed: who gets here has
        an open connection, and should send what is new elsewhere. In a pod nothing hangs on it. Kubernetes takes a pod
        off when it begins to end, and SIGTERM comes after the preStop hook: that of Knative's queue-proxy waits until
        it has drained and answers probes itself, that of a plain Deployment sleeps until nobody sends any more.
        """
        if self._drain.begun:
            raise ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
        if self._settings.sink_missing:
            raise sink_missing()
        self._check_stalled()
        if failing := self._background.failing:
            details = [f"{loop.name} has failed {loop.failures} times in a row" for loop in failing]
            raise ProblemError(problems.STALLED, f"{'; '.join(details)}.")
        return JSONResponse({"status": "ready"})

    def _check_stalled(self) -> None:
        if stalled := self._background.stalled:
            details = [f"{loop.name} has not gone round for {loop.seconds:.0f} s" for loop in stalled]
            raise ProblemError(problems.STALLED, f"{'; '.join(details)}.")
