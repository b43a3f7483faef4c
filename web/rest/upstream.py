"""The way to the model servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from contract import ProblemError, problems
from web.client.call import Call, Event
from web.client.exchange import Exchange
from web.client.failures import too_late
from web.readiness.model_readiness import SILENCE_SECONDS
from web.readiness.probe import POLL_SECONDS, ReadinessProbe
from wire.deadline import HEADER

if TYPE_CHECKING:  # pydantic-settings takes longer to import than all the rest of web
    from web.settings import Settings


LEAST_SECONDS = 0.01
"""The time that a call is told that it has, at least."""

_WAKING = (problems.LOADING, problems.UPSTREAM_TIMEOUT, problems.TOO_LATE)
"""What a model that is waking up answers, or a gateway in front of it in its place, or nobody in time."""


class Upstream:
    """The model servers, by way of one pool of connections."""

    def __init__(self, client: httpx.AsyncClient, wakers: Mapping[str, ReadinessProbe], settings: Settings) -> None:
        self._client = client
        self._wakers = wakers
        self._read_seconds = settings.read_seconds

    @asynccontextmanager
    async def open(
        self, model: str, call: Call[Event], headers: dict[str, str], seconds: float, *, patient: bool
    ) -> AsyncIterator[Exchange[Event]]:
        """Make the call and wait until it is accepted, which is not yet running. Drain the context cancels it.

        A model that is waking up is asked again when it has. A call that would not live to see it (`seconds` are its
        time) is a LOADING problem at once, and not when its time is over: whoever waits can do something else until the
        Retry-After, and the model goes on waking. Unless it is `patient`.

        Whatever goes wrong is a ProblemError.
        """
        waker = self._wakers[model]
        readiness = waker.readiness
        assert waker.url is not None
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while True:
            left = max(deadline - clock(), LEAST_SECONDS)
            if not patient:
                readiness.check_wait(left)
            begun = time.monotonic()
            exchange = Exchange(
                self._client,
                waker.url,
                call,
                headers | {HEADER: f"{round(left, 2):g}"},
                deadline,
                read_seconds=self._read_seconds,
                sleeps=readiness.sleeps or readiness.waking is not None,
            )
            try:
                try:
                    await self._accepted(exchange, waker, begun, None if patient else deadline)
                except ProblemError as error:
                    readiness.failed(error, begun)
                    if readiness.waking is None or error.kind not in _WAKING:
                        raise
                else:
                    with readiness.answers():
                        yield exchange
                    return
            finally:
                await exchange.close()
            waker.start(pause=POLL_SECONDS)
            if not patient:
                readiness.check_wait(deadline - clock())
            await waker.settled(deadline - clock())
            if clock() >= deadline:
                raise readiness.problem() if readiness.waking else too_late(waker.url)

    async def _accepted(
        self, exchange: Exchange[Event], waker: ReadinessProbe, begun: float, deadline: float | None
    ) -> None:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await exchange.accepted()
        except TimeoutError:
            waker.note_silence(begun)
            if deadline is not None:
                waker.readiness.check_wait(deadline - asyncio.get_running_loop().time())
            await exchange.accepted()
