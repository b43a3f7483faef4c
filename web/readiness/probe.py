"""Waking a model, and following it until it is awake."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import httpx

from contract import ProblemError, problems
from web.client.exchange import REFUSAL_BYTES, beginning
from web.client.failures import our_problem, refusal, transport_failures
from web.http.accept import JSON
from web.readiness.model_readiness import SILENCE_SECONDS, Readiness

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Between two questions to a model server that answers that it is loading."""

READY_PATH = "/v2/health/ready"
"""Of KServe's protocol. Any request wakes a model; this one generates nothing, and who does not know it is awake."""

_MAY_PASS = (problems.LOADING, problems.OVERLOADED)
"""OVERLOADED: there is no connection free, or the model has no memory just now."""

_NOT_YET = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


class ReadinessProbe:
    """Asks one model's server whether it is ready until it is, one question at a time, however many wait for it.

    It goes on when they have left: the model wakes up anyway, and how long that takes is worth knowing. Without a `url`
    it cannot.
    """

    def __init__(self, client: httpx.AsyncClient, url: str | None, readiness: Readiness, settings: Settings) -> None:
        self.readiness = readiness
        self.url = url
        self._client = client
        self._seconds = settings.wake_seconds
        self._timeout = httpx.Timeout(settings.connect_seconds, read=None, pool=settings.pool_seconds)
        self._scope: anyio.CancelScope | None = None  # there is no event loop yet
        self._task: asyncio.Task[None] | None = None

    def start(self, pause: float = 0.0) -> None:
        """Wake it, unless that is being done. `pause`: it has just been asked."""
        if self._task is None or self._task.done():
            self._scope = anyio.CancelScope()
            self._task = asyncio.create_task(self._follow(self._scope, pause))
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # in case nobody waits

    def note_silence(self, begun: float) -> None:
        """A request that began then has no answer yet: see web.readiness.model_readiness."""
        if self.readiness.sleeps:
            self.readiness.wakes(begun)
            self.start()

    async def settled(self, seconds: float) -> None:
        """Wait until it has woken up or failed, for so long at most."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=max(seconds, 0))

    async def news(self, seconds: float) -> None:
        """Wait until something is known of it that was not before; a problem if that is why it does not wake up."""
        assert self._task is not None
        bell = asyncio.ensure_future(self.readiness.bell.wait())
        try:
            await asyncio.wait({self._task, bell}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            bell.cancel()
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        if self._scope is not None and self._task is not None:
            self._scope.cancel()
            await asyncio.wait({self._task})

    async def _follow(self, scope: anyio.CancelScope, pause: float) -> None:
        # Nothing but this scope cancels the task, or connections would stay taken: see web.client.exchange.
        with scope:
            with anyio.move_on_after(self._seconds):
                await anyio.sleep(pause)
                while True:
                    if await self._awake():
                        return
                    await anyio.sleep(POLL_SECONDS)
            log.warning("%s did not wake up in %g s", self.readiness.model, self._seconds)
            self.readiness.lost()

    async def _awake(self) -> bool:
        assert self.url is not None
        begun = time.monotonic()
        silent = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self.note_silence, begun)
        try:
            with transport_failures(self.url):
                async with self._client.stream(
                    "GET", self.url + READY_PATH, headers={"Accept": JSON}, timeout=self._timeout
                ) as answer:
                    silent.cancel()
                    body = await beginning(answer, REFUSAL_BYTES)
            if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                self.readiness.answered()
                return True
            error = our_problem(self.url, body)
            if error is None and answer.status_code in _NOT_YET:  # a gateway's, or another runtime's
                return False
            raise error or refusal(self.url, answer.status_code, answer.headers, body)
        except ProblemError as error:
            self.readiness.failed(error, begun)
            if error.kind in _MAY_PASS:
                return False
            raise
        finally:
            silent.cancel()
