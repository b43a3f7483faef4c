"""Several generations of one request, run together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, TypeVar

from contract.problems import ProblemError, within
from predictor.engine.events import EngineEvent, TextFinished
from predictor.engine.generation import Generation

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


async def merged(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, EngineEvent]]:
    """The events of several texts as they come, each with the number of its text. Raises the ProblemError that one of
    them ends with."""
    if len(generations) == 1:
        async for event in generations[0]:
            yield 0, event
        return
    events: asyncio.Queue[tuple[int, EngineEvent | ProblemError]] = asyncio.Queue()  # bounded as each generation is

    async def collect(number: int, generation: Generation) -> None:
        try:
            async for event in generation:
                events.put_nowait((number, event))
        except ProblemError as error:
            events.put_nowait((number, error))

    tasks = [asyncio.create_task(collect(number, generation)) for number, generation in enumerate(generations)]
    try:
        left = len(tasks)
        while left:
            number, item = await events.get()
            if isinstance(item, ProblemError):
                raise item
            yield number, item
            left -= isinstance(item, TextFinished)
    finally:
        for task in tasks:
            task.cancel()
