"""Several generations of one request, run together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from contract.problems import ProblemError, within

Result = TypeVar("Result")


async def all_of(generations: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all. The first failure, or a cancellation, cancels the others."""
    tasks = [asyncio.ensure_future(generation) for generation in generations]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def all_instances(generations: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """As `all_of`, for the instances of a V1 request: a problem names the instance that it is about."""

    async def named(number: int, generation: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await generation
        except ProblemError as error:
            raise within(f"instances.{number}", error) from None

    return await all_of([named(number, generation) for number, generation in enumerate(generations)])
