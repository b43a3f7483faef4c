"""One exchange with a model server: the request, and the events that answer it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Generic

import anyio
import httpx2

from web.client.call import Call, Event
from web.client.failures import bad_answer, refusal, too_late, too_slow, transport_failures
from web.client.scoped_task import ScopedTask
from web.client.sse_parser import DataFields, EventTooLongError

REFUSAL_BYTES = 65_536
"""Most bytes that are read of an error's body."""

DRAIN_SECONDS = 1.0
"""Longest wait, after `[DONE]`, for the end of the body, without which the connection cannot be used again."""

_DONE = b"[DONE]"


class _Accepted:
    """Queued before the events: the model server has accepted the request."""


@dataclass(frozen=True)
class TimeLimits:
    """Of one exchange. Where the model `may_wake` first, silence counts only once the answer has begun: waking takes
    long and is silent on Knative."""

    deadline: float
    """On the event loop's clock."""
    silence_seconds: float
    """Longest silence of the model server."""
    may_wake: bool
    own_limit: bool
    """Whether the deadline is the client's."""


class Exchange(Generic[Event]):
    """A request and the events that answer it, in a task of its own.

    Events are queued here for a client that reads slowly, which must not hold up the model; the call's limits bound
    them.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        url: str,
        call: Call[Event],
        headers: dict[str, str],
        limits: TimeLimits,
    ) -> None:
        self._client = client
        self._url = url
        self._call = call
        self._request = client.build_request("POST", url + call.path, json=call.body, headers=headers)
        self._limits = limits
        self.done = False
        """Whether the model server has said that its answer is whole, which not all say."""
        self._silence = anyio.CancelScope(deadline=math.inf if limits.may_wake else self._silent_until())
        self._items: asyncio.Queue[_Accepted | Event | Exception | None] = asyncio.Queue()
        self._task = ScopedTask(self._run())

    async def accepted(self) -> None:
        """Wait until the model server has accepted the request; raises the problem when it does not."""
        item = await self._next()
        assert isinstance(item, _Accepted)

    async def events(self) -> AsyncGenerator[Event]:
        while (item := await self._next()) is not None:
            assert not isinstance(item, _Accepted)
            yield item

    async def _next(self) -> _Accepted | Event | None:
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        """Cancel whatever is still going on, and wait until the connection is free or closed."""
        await self._task.close()

    async def _run(self) -> None:
        end: Exception | None = None
        try:
            with transport_failures(self._url):
                with anyio.CancelScope(deadline=self._limits.deadline) as whole, self._silence:
                    await self._converse()
                if self._silence.cancelled_caught:
                    raise too_slow(self._url, self._limits.silence_seconds)
                if whole.cancelled_caught:
                    raise too_late(self._url, own_limit=self._limits.own_limit)
        except Exception as error:  # for whoever reads; nobody awaits this task
            end = error
        finally:
            self._items.put_nowait(end)

    async def _converse(self) -> None:
        response = await self._client.send(self._request, stream=True)
        self._silence.deadline = self._silent_until()
        try:
            if response.status_code != httpx2.codes.OK:
                raise refusal(
                    self._url, response.status_code, response.headers, await beginning(response, REFUSAL_BYTES)
                )
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise bad_answer(self._url, "it is no event stream")
            self._items.put_nowait(_Accepted())
            await self._queue_events(response.aiter_bytes())
        finally:
            await response.aclose()

    def _silent_until(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.silence_seconds

    async def _queue_events(self, parts: AsyncIterator[bytes]) -> None:
        """Queue the events up to [DONE] or the end. Whether they make a result is for the reader to check."""
        fields = DataFields(self._call.event_bytes)
        size = 0
        async for part in parts:
            self._silence.deadline = self._silent_until()
            size += len(part)
            if size > self._call.answer_bytes:
                raise bad_answer(self._url, "it is too long")
            try:
                events = fields.feed(part)
            except EventTooLongError:
                raise bad_answer(self._url, "an event of it is too long") from None
            for data in events:
                if data == _DONE:
                    self.done = True
                    await _drain(parts)
                    return
                self._items.put_nowait(self._call.parse(self._url, data))


async def beginning(response: httpx2.Response, limit: int) -> bytes:
    """The first `limit` bytes of a body, or all of it."""
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > limit:
            return body[:limit]
    return body


async def _drain(parts: AsyncIterator[bytes]) -> None:
    try:
        with anyio.move_on_after(DRAIN_SECONDS):
            async for _ in parts:
                pass
    except httpx2.HTTPError:
        pass  # the answer is whole; the connection is closed instead of kept
