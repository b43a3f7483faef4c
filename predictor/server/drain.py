"""The end of a server: on SIGTERM, or when it has been idle, it finishes what it has accepted and stops.

Knative's queue-proxy may still hold requests for a pod after its SIGTERM. So the server goes on accepting connections
until no request has come for `quiet_seconds`. An idle server stops accepting only while no connection is open; whoever
else holds the listening socket, as the supervisor does, finds every later connection in it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass

from grpc import aio

from predictor import systemd
from predictor.events.subscriber import EventSubscriber
from predictor.protocols.generation_model import GenerationModel
from predictor.server.rest_server import PredictorRestServer
from wire.drain import LAST_SECONDS

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""Between two looks whether a drain begins or ends."""


@dataclass(kw_only=True)
class Lifetime:
    """How long a server goes on serving, in seconds."""

    grace_seconds: float
    """Longest from SIGTERM to the end; what is not finished then ends with a problem."""

    quiet_seconds: float = 0.0
    """After SIGTERM, so long without a request before it stops."""

    idle_seconds: float = 0.0
    """So long without a request before it drains by itself; 0 is never."""

    nap_seconds: float = 0.0
    """So long without a request before the model sleeps, while the server stays; 0 is never."""


class ServerDrain:
    """Waits until the server should end, and ends it."""

    def __init__(
        self, model: GenerationModel, rest: PredictorRestServer, subscriber: EventSubscriber, lifetime: Lifetime
    ) -> None:
        self._model = model
        self._rest = rest
        self._subscriber = subscriber
        self._lifetime = lifetime
        self._requested = threading.Event()

    def request(self) -> None:
        """Begin soon; requested again, end without a grace. Safe from any thread and from a signal handler."""
        if self._requested.is_set():
            self._lifetime.grace_seconds = 0
        self._requested.set()

    async def run(self, grpc: aio.Server | None) -> None:
        """Wait for a request or for idleness, drain, and stop the servers."""
        while not (self._requested.is_set() or self._stop_accepting_when_idle()):  # noqa: ASYNC110  another thread sets it
            await asyncio.sleep(POLL_SECONDS)
        systemd.notify_stopping()
        self._model.drain()
        begun = time.monotonic()
        grpc_calls = asyncio.create_task(grpc.stop(self._lifetime.grace_seconds)) if grpc else None
        while self._is_serving(grpc_calls):
            if time.monotonic() - begun >= self._lifetime.grace_seconds - LAST_SECONDS:
                break
            await asyncio.sleep(POLL_SECONDS)
        self._model.stop()
        if grpc_calls:
            await grpc_calls
        self._rest.stop()

    def _is_serving(self, grpc_calls: asyncio.Task[None] | None) -> bool:
        if grpc_calls and not grpc_calls.done():
            return True
        requests = self._rest.requests
        return requests.in_flight > 0 or requests.quiet_s < self._lifetime.quiet_seconds

    def _stop_accepting_when_idle(self) -> bool:
        """Stop accepting connections, if nothing is to do and no request has come for long enough."""
        idle_s = min(self._rest.requests.quiet_s, self._model.startup.ready_s)
        if not self._lifetime.idle_seconds or idle_s < self._lifetime.idle_seconds:
            return False
        if self._model.startup.awaits_retry:
            return False
        if self._subscriber.busy or not self._rest.stop_accepting_if_unconnected():
            return False
        log.info("leaving: nothing has come for %.0f s", idle_s)
        return True
