"""Tasks that use the HTTP client and can be given up without losing a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

import anyio

Result = TypeVar("Result")


class ScopedTask(Generic[Result]):
    """A task that only its own anyio scope cancels, whatever happens to those who wait for it.

    httpcore2 (2.16) keeps its pool in order when an anyio scope cancels it. When a task is cancelled the asyncio way
    (`Task.cancel`, `asyncio.timeout`) while httpcore2 closes a response, the connection may stay taken for ever:
    its shields are anyio's, which hold up no other cancellation.

    Wait for `task` with `asyncio.wait`, which does not cancel it.
    """

    def __init__(self, work: Coroutine[Any, Any, Result], *, apart: bool = False) -> None:
        """With `apart` it is no part of the request that it is begun in: neither in its trace nor in its log."""
        self._scope = anyio.CancelScope()
        self.task = asyncio.create_task(self._run(work), context=Context() if apart else None)
        self.task.add_done_callback(_retrieve)

    async def close(self) -> None:
        """Cancel the work, if it is still going on, and wait until its connection is free or closed."""
        self._scope.cancel()
        await asyncio.wait({self.task})

    async def result(self) -> Result:
        """Wait for the result; raises what the work raises. The work is cancelled when the caller is."""
        try:
            await asyncio.wait({self.task})
        finally:
            await self.close()
        return self.task.result()

    async def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        with self._scope:
            return await work
        raise asyncio.CancelledError  # as a task that was cancelled ends


def _retrieve(task: asyncio.Task[Any]) -> None:
    """asyncio logs exceptions that nobody has asked for; often nobody waits any more."""
    if not task.cancelled():
        task.exception()
