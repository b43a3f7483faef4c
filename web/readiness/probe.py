"""Wakes a model, and asks it until it is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import httpx2

from contract import ProblemError, problems
from web.client.exchange import REFUSAL_BYTES, beginning
from web.client.failures import our_problem, refusal, transport_failures
from web.client.scoped_task import ScopedTask
from web.http.accept import JSON
from web.readiness.model_readiness import FIRST_STATUS_SECONDS, Readiness
from web.readiness.state import SILENCE_SECONDS
from wire.concurrency.first_of_two import finishes_first

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Longest between two questions to a model server that is not ready yet."""

FIRST_POLL_SECONDS = 0.04
"""Shortest: a model that is forked is ready in a fifth of a second."""

POLL_SHARE = 0.08
"""Of the time for which it has been asked, until it is asked again."""

FAILED_SECONDS = 5.0
"""Before the next question after one that has failed for an unforeseen reason."""

READY_PATH = "/v2/health/ready"
"""Of KServe's protocol. Any request wakes a model; this one generates nothing. A server that answers 404 is awake: one
that has other health routes, as vLLM."""

_MAY_PASS = (problems.LOADING, problems.OVERLOADED)
"""Problems that a model which is waking may have for a while. OVERLOADED: no connection or memory is free just now."""

_NOT_YET = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


class ReadinessProbe:
    """Asks one model's server whether it is ready until it is: one question at a time, however many requests wait.

    It goes on when nobody waits any more: the model wakes up anyway, and how long that takes is worth knowing. A model
    without a `url` cannot be asked.
    """

    def __init__(self, client: httpx2.AsyncClient, url: str | None, readiness: Readiness, settings: Settings) -> None:
        self.readiness = readiness
        self.url = url
        self._client = client
        self._headers = {"Accept": JSON, **settings.authorization(readiness.model)}
        self._seconds = settings.wake_seconds
        self._timeout = httpx2.Timeout(settings.connect_seconds, read=None, pool=settings.pool_seconds)
        self._asking: ScopedTask[None] | None = None

    def start(self, pause: float = 0.0) -> None:
        """Begin to ask after `pause` seconds, unless the model is being asked already."""
        if self._asking is None or self._asking.task.done():
            self._asking = ScopedTask(self._ask(pause), apart=True)

    def note_silence(self, begun: float) -> None:
        """A request that began then (of `time.monotonic`) has no answer yet: see web.readiness."""
        self.readiness.note_request(begun)
        if self.readiness.seems_asleep or self.readiness.waking is not None:
            self.start()

    async def settled(self, seconds: float) -> None:
        """Wait until it is ready or has failed, for so many seconds at most."""
        if self._asking is not None:
            await asyncio.wait({self._asking.task}, timeout=max(seconds, 0))

    async def changed(self, seconds: float) -> None:
        """Wait until its readiness changes, for so many seconds at most. Raises the problem that asking ended with."""
        assert self._asking is not None
        task = self._asking.task
        await finishes_first(self.readiness.changed(), task, seconds)
        if task.done():
            task.result()

    async def close(self) -> None:
        if self._asking is not None:
            await self._asking.close()

    async def _ask(self, pause: float) -> None:
        if self.readiness.seems_asleep:
            self.readiness.ask_replicas()
        begun = time.monotonic()
        with anyio.move_on_after(self._seconds):
            while True:
                await anyio.sleep(pause)
                try:
                    if await self._ready():
                        return
                    pause = min(max(POLL_SHARE * (time.monotonic() - begun), FIRST_POLL_SECONDS), POLL_SECONDS)
                except ProblemError:
                    raise
                except Exception:  # one that is not foreseen: a model that wakes is asked on, but not as often
                    log.exception("asking %s has failed and is tried again", self.readiness.model)
                    pause = FAILED_SECONDS
        log.warning("%s did not wake up in %g s", self.readiness.model, self._seconds)
        self.readiness.lost()

    async def _ready(self) -> bool:
        assert self.url is not None
        begun = time.monotonic()
        watching = asyncio.create_task(self._watch_silence(begun))
        try:
            with self.readiness.silence(begun), transport_failures(self.url):
                async with self._client.stream(
                    "GET", self.url + READY_PATH, headers=self._headers, timeout=self._timeout
                ) as answer:
                    watching.cancel()
                    body = await beginning(answer, REFUSAL_BYTES)
            if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                self.readiness.answered()
                return True
            error = our_problem(self.url, body)
            if error is None and answer.status_code in _NOT_YET:  # of a gateway, or of another runtime
                if answer.status_code == HTTPStatus.GATEWAY_TIMEOUT:  # which has waited in vain
                    self.readiness.note_question(begun)
                return False
            raise error or refusal(self.url, answer.status_code, answer.headers, body)
        except ProblemError as error:
            self.readiness.failed(error, begun)
            if error.kind in _MAY_PASS:
                return False
            raise
        finally:
            watching.cancel()

    async def _watch_silence(self, begun: float) -> None:
        """Of a question that began then. What its silence means may change while it lasts."""
        await asyncio.sleep(FIRST_STATUS_SECONDS)
        self.readiness.note_request(begun)
        while True:
            await asyncio.sleep(SILENCE_SECONDS)
            self.readiness.note_question(begun)
