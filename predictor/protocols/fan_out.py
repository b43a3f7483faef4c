"""Several generations of one request, run together."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from contract.problems import ProblemError, within
from wire.concurrency.all_of import Result, all_of


async def all_instances(generations: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """As `all_of`, for the instances of a V1 request: a problem names the instance that it is about."""

    async def named(number: int, generation: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await generation
        except ProblemError as error:
            raise within(f"instances.{number}", error) from None

    return await all_of([named(number, generation) for number, generation in enumerate(generations)])
