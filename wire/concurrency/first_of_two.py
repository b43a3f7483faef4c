"""Waiting for the first of two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


async def finishes_first(work: Awaitable[Any], other: asyncio.Future[Any], seconds: float | None = None) -> bool:
    """Run `work` until it has finished, `other` is done, or `seconds` have passed; whether `work` has finished.

    If not, it is cancelled and its clean-up awaited; the same happens when the caller is cancelled. `other` is left
    alone. Raises what `work` raises, its clean-up included.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, other}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finished = task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
    if finished or not task.cancelled():
        task.result()
    return finished
