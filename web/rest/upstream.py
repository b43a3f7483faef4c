"""Calls to the model servers, repeated while a model wakes up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2

from contract import ProblemError, problems
from web.client.call import Call, Event
from web.client.exchange import Exchange, TimeLimits
from web.client.failures import too_late
from web.readiness.model_readiness import FIRST_STATUS_SECONDS, Readiness
from web.readiness.probe import FIRST_POLL_SECONDS, ReadinessProbe
from web.readiness.state import SILENCE_SECONDS
from web.rest.cache_salt import CacheSalts
from web.rest.rest_request import RestRequest
from wire.deadline import HEADER
from wire.request_context import CALLER_HEADER, WHOLE_HEADER

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings


LEAST_SECONDS = 0.01
"""Smallest deadline that is sent upstream: model servers refuse 0 as malformed."""

_WAKING = (problems.LOADING, problems.UPSTREAM_TIMEOUT, problems.TOO_LATE)
"""What a request to a waking model ends with: LOADING from its server, the others from a gateway or from the client."""


class Upstream:
    """The model servers, through one pool of connections."""

    def __init__(self, client: httpx2.AsyncClient, probes: Mapping[str, ReadinessProbe], settings: Settings) -> None:
        self._client = client
        self._probes = probes
        self._settings = settings
        self._salts = CacheSalts(settings.callers_secret)

    def readiness(self, model: str) -> Readiness:
        return self._probes[model].readiness

    def check_wait(self, model: str, seconds: float) -> None:
        """Wake a model that is known to be asleep, and raise LOADING where it is expected to be ready later than in so
        many seconds: before a stream begins, so that its client gets a status and a Retry-After."""
        probe = self._probes[model]
        readiness = probe.readiness
        expected = readiness.expected_seconds
        if readiness.reported == "asleep" and expected is not None and expected > seconds:
            readiness.note_request(time.monotonic())
        try:
            readiness.check_wait(seconds)
        except ProblemError:
            probe.start()
            raise

    @asynccontextmanager
    async def open(self, rest_request: RestRequest, call: Call[Event]) -> AsyncIterator[Exchange[Event]]:
        """An exchange that the model server has accepted, though the generation may not run yet. Leaving the context
        cancels it.

        While the model is waking, the call is made again whenever the model may be ready. Where it is expected to wake
        later than the request can wait, that is a LOADING problem at once: the client learns a Retry-After instead of
        waiting for nothing, and the model goes on waking. A job waits all the same.

        Whatever goes wrong is a ProblemError.
        """
        exchange = await self._accepted(rest_request, call)
        try:
            with self._probes[rest_request.model].readiness.answers():
                yield exchange
        finally:
            await exchange.close()

    async def _accepted(self, rest_request: RestRequest, call: Call[Event]) -> Exchange[Event]:
        """Attempt, wait for the model if it is waking, and attempt again."""
        salt = self._salts.headers(rest_request.caller)
        attempts = _Attempts(self._client, self._probes[rest_request.model], rest_request, self._settings, salt)
        while True:
            attempts.check_wait()
            exchange = await attempts.make(call)
            if exchange is not None:
                return exchange
            await attempts.wait()


class _Attempts:
    """The attempts at one request."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        probe: ReadinessProbe,
        rest_request: RestRequest,
        settings: Settings,
        salt: dict[str, str],
    ) -> None:
        served = settings.models[rest_request.model]
        self._client = client
        self._probe = probe
        self._url = served.address + served.path
        self._headers = {
            **rest_request.headers,
            **settings.authorization(rest_request.model),
            CALLER_HEADER: rest_request.caller,
            **salt,
            **({} if rest_request.live else {WHOLE_HEADER: "1"}),
        }
        self._telemetry = rest_request.telemetry
        self._waits_for_waking = rest_request.of_job
        self._read_seconds = settings.read_seconds
        self._own_limit = rest_request.own_limit
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + rest_request.seconds

    @property
    def _left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._deadline - self._now()

    def check_wait(self) -> None:
        """Raise LOADING where the model is expected to wake up after the deadline."""
        if not self._waits_for_waking:
            self._probe.readiness.check_wait(self._left)

    async def make(self, call: Call[Event]) -> Exchange[Event] | None:
        """The exchange, accepted; None when the model is waking; any other problem is raised."""
        readiness = self._probe.readiness
        begun = time.monotonic()
        self._telemetry.enter("connect")
        try:
            return await self._accepted(call, begun)
        except ProblemError as error:
            readiness.failed(error, begun)
            if readiness.waking is None or error.kind not in _WAKING:
                raise
            return None

    async def wait(self) -> None:
        """Until the model has woken up or failed; LOADING or TOO_LATE when the deadline comes first."""
        self._telemetry.turns_out("wake")
        self._probe.start(pause=FIRST_POLL_SECONDS)
        self.check_wait()
        await self._probe.settled(self._left)
        if self._left <= 0:
            readiness = self._probe.readiness
            raise readiness.problem() if readiness.waking else too_late(self._url, own_limit=self._own_limit)

    async def _accepted(self, call: Call[Event], begun: float) -> Exchange[Event]:
        readiness = self._probe.readiness
        limits = TimeLimits(
            deadline=self._deadline,
            silence_seconds=self._read_seconds,
            may_wake=readiness.may_sleep or readiness.waking is not None,
            own_limit=self._own_limit,
        )
        # Not before ours: whose limit it is, is known here alone.
        headers = self._headers | {HEADER: f"{math.ceil(100 * max(self._left, LEAST_SECONDS)) / 100:g}"}
        exchange = Exchange(self._client, self._url, call, headers, limits)
        try:
            await self._wait_for_acceptance(exchange, begun)
        except BaseException:
            await exchange.close()
            raise
        return exchange

    async def _wait_for_acceptance(self, exchange: Exchange[Event], begun: float) -> None:
        seconds = FIRST_STATUS_SECONDS
        with self._probe.readiness.silence(begun):
            while True:
                try:
                    async with asyncio.timeout(seconds):
                        return await exchange.accepted()
                except TimeoutError:
                    self._probe.note_silence(begun)
                    if self._probe.readiness.waking is not None:
                        self._telemetry.turns_out("wake")
                    self.check_wait()
                    seconds = SILENCE_SECONDS
