"""Several pieces of work, done together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def all_of(works: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all, in order. The first failure, or a cancellation, cancels the others and waits for their
    clean-up."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
