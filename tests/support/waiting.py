"""Polling until something holds, with a deadline: tests use it instead of sleeping for a fixed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

SECONDS = 60.0
"""How long to wait unless told otherwise: more than a busy machine needs."""
PAUSE_SECONDS = 0.01


def wait_until(
    holds: Callable[[], T | None], what: str = "", seconds: float = SECONDS, pause: float = PAUSE_SECONDS
) -> T:
    """Call `holds` until it gives something true, and return that.

    Fails with `what` was waited for and the last value after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        if time.monotonic() >= deadline:
            raise AssertionError(_message(what, value, seconds))
        time.sleep(pause)
    return value


@overload
async def eventually(holds: Callable[[], Awaitable[T]], what: str = "", seconds: float = SECONDS) -> T: ...
@overload
async def eventually(holds: Callable[[], T], what: str = "", seconds: float = SECONDS) -> T: ...
async def eventually(holds: Callable[[], Any], what: str = "", seconds: float = SECONDS) -> Any:
    """`wait_until` for coroutines: other tasks run between two calls of `holds`, which may be asynchronous."""
    value = None
    try:
        async with asyncio.timeout(seconds) as deadline:
            while True:
                value = holds()
                if inspect.isawaitable(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(PAUSE_SECONDS)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise AssertionError(_message(what, value, seconds)) from None


def _message(what: str, value: object, seconds: float) -> str:
    return f"not within {seconds:g} s: {what or 'what was waited for'} (last value: {value!r})"
