"""The client for programs with an event loop: the same as shangcai.client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx2

from contract import ProblemError
from shangcai.attempts import Attempts
from shangcai.delivered_text import DeliveredText
from shangcai.event_reader import EventReader, broken
from shangcai.requests import (
    CANCEL_SECONDS,
    JOB_SECONDS,
    TIMEOUT_SECONDS,
    RequestBuilder,
    default_headers,
    request_body,
)
from shangcai.results import (
    DescribedModels,
    Event,
    JobStatus,
    PictureResult,
    Result,
    TextResult,
    outcome,
    read_job,
    read_job_id,
    read_models,
    read_problem,
    read_result,
)


class AsyncClient:
    """See shangcai.client.Client."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout = timeout
        self._http = httpx2.AsyncClient(base_url=url, headers=default_headers(key), transport=transport)
        self._requests = RequestBuilder(self._http)
        self._exchange = AsyncExchange(self._http)

    @overload
    async def generate(
        self, prompt: str | None = None, *, kind: Literal["text"], timeout: float | None = None, **fields: Any
    ) -> TextResult: ...
    @overload
    async def generate(
        self, prompt: str | None = None, *, kind: Literal["image"], timeout: float | None = None, **fields: Any
    ) -> PictureResult: ...
    @overload
    async def generate(self, prompt: str | None = None, *, timeout: float | None = None, **fields: Any) -> Result: ...
    async def generate(self, prompt: str | None = None, *, timeout: float | None = None, **fields: Any) -> Result:
        """A text or pictures."""
        body, attempts = request_body(prompt, fields), self._attempts(timeout)
        return read_result(await self._exchange.answer(lambda: self._requests.generate(body, attempts), attempts))

    def stream(
        self, prompt: str | None = None, *, timeout: float | None = None, resume: bool = False, **fields: Any
    ) -> AsyncGenerator[Event]:
        """The events of a generation; the last one is its result. Closing the generator cancels it.

        With `resume` it goes on after a broken connection, as a job that is forgotten in the end. Raises DIVERGED
        where that had to be begun again and goes another way.
        """
        body, attempts = request_body(prompt, fields), self._attempts(timeout, repeatable=resume)
        if resume:
            return self._resumed(body, attempts)
        reader = EventReader(lambda _: self._requests.stream(body, attempts), attempts)
        return self._exchange.events(reader)

    async def submit(
        self,
        prompt: str | None = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> AsyncJob:
        """A job, which goes on without this program. One key makes one job, however often it is submitted; without one
        this call has a key of its own."""
        body, attempts = request_body(prompt, fields), self._attempts(timeout, repeatable=True)
        return await self._submit(body, attempts, idempotency_key)

    def job(self, id: str) -> AsyncJob:
        """The job of this id, whichever program of this caller has submitted it."""
        return AsyncJob(id, self._timeout, self._requests, self._exchange)

    async def models(self, *, timeout: float | None = None) -> DescribedModels:
        """Which models are served, and what is known of each. None is woken for it."""
        attempts = self._attempts(timeout, repeatable=True)
        return read_models(await self._exchange.answer(lambda: self._requests.models(attempts), attempts))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _attempts(self, timeout: float | None, *, repeatable: bool = False) -> Attempts:
        return Attempts(self._timeout if timeout is None else timeout, repeatable=repeatable)

    async def _submit(self, body: bytes, attempts: Attempts, key: str | None = None) -> AsyncJob:
        submission = self._requests.submission(body, key)
        return self.job(read_job_id(await self._exchange.answer(lambda: submission(attempts), attempts)))

    async def _resumed(self, body: bytes, attempts: Attempts) -> AsyncGenerator[Event]:
        job = await self._submit(body, attempts)
        delivered = DeliveredText()
        try:
            async with aclosing(job.events(timeout=attempts.left)) as events:
                async for event in events:
                    if (new := delivered.new(event)) is not None:
                        yield new
        finally:
            with suppress(httpx2.TransportError, ProblemError, TimeoutError):
                await job.cancel()


class AsyncJob:
    """See shangcai.client.Job."""

    def __init__(self, id: str, timeout: float, requests: RequestBuilder, exchange: AsyncExchange) -> None:
        self.id = id
        self.last_event_id: str | None = None
        """Of the last event that `events` has given: what a later program goes on after."""
        self._timeout = timeout
        self._requests = requests
        self._exchange = exchange

    async def status(self) -> JobStatus:
        """How far it is; its result or its problem once it has ended."""
        attempts = Attempts(self._timeout, repeatable=True)
        return read_job(await self._exchange.answer(lambda: self._requests.job(self.id, attempts), attempts))

    async def events(self, after: str | None = None, *, timeout: float = JOB_SECONDS) -> AsyncGenerator[Event]:
        """Its events so far, or those after the one of the id `after`, and the coming ones; the last one is its result.
        Raises the problem that it ends with, and goes on after a broken connection. After a status `queued` all of it
        comes anew."""
        attempts = Attempts(timeout, repeatable=True)
        reader = EventReader(lambda last: self._requests.job_events(self.id, attempts, last), attempts, after)
        async with aclosing(self._exchange.events(reader)) as events:
            async for event in events:
                self.last_event_id = reader.last_event_id
                yield event
        if not reader.ended:  # every event was read before
            yield outcome(await self.status())

    async def wait(self, *, timeout: float = JOB_SECONDS) -> Result:
        """Its result, when there is one. Raises the problem that it ends with."""
        async for event in self.events(timeout=timeout):
            if isinstance(event, TextResult | PictureResult):
                result = event
        return result

    async def cancel(self) -> None:
        """End it at its next token or step; forget it, if it has ended."""
        attempts = Attempts(min(self._timeout, CANCEL_SECONDS), repeatable=False)
        await self._exchange.answer(lambda: self._requests.job(self.id, attempts, method="DELETE"), attempts)


class AsyncExchange:
    """Sends requests, as often as their attempts allow."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def answer(self, request: Callable[[], httpx2.Request], attempts: Attempts) -> bytes:
        """The body of the answer that is no refusal."""
        while True:
            try:
                response = await self._http.send(request())
                if response.is_success:
                    return response.content
                failure: httpx2.TransportError | ProblemError = read_problem(response)
            except httpx2.TransportError as error:
                failure = error
            await asyncio.sleep(attempts.pause(failure))

    async def events(self, reader: EventReader) -> AsyncGenerator[Event]:
        """Until the end of the generation, or of what there is to say of it. Raises the problem that it ends with."""
        while not reader.ended:
            failure: httpx2.TransportError | ProblemError = broken()
            try:
                async with aclosing(await self._http.send(reader.connection(), stream=True)) as response:
                    if response.status_code == httpx2.codes.NO_CONTENT:
                        return
                    if response.is_success:
                        async for chunk in response.aiter_bytes():
                            for event in reader.feed(chunk):
                                yield event
                            if reader.ended:
                                break
                    else:
                        await response.aread()
                        failure = read_problem(response)
            except httpx2.TransportError as error:
                failure = error
            if not reader.ended:
                await asyncio.sleep(reader.attempts.pause(failure))
        if reader.failure is not None:
            raise reader.failure
