"""Work done together."""

from __future__ import annotations

import asyncio

import pytest

from wire.concurrency.all_of import all_of


async def test_results_in_order() -> None:
    first = asyncio.Event()

    async def one() -> int:
        await first.wait()
        return 1

    async def two() -> int:
        first.set()
        return 2

    assert await all_of([one(), two()]) == [1, 2]


async def test_none() -> None:
    assert await all_of([]) == []


@pytest.mark.parametrize("fails", [True, False])
async def test_a_failure_or_a_cancellation_ends_the_others(fails: bool) -> None:
    """And waits until they have cleaned up."""
    cleaned_up = False
    goes_on = asyncio.Event()

    async def long() -> None:
        nonlocal cleaned_up
        goes_on.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up = True

    async def other() -> None:
        await goes_on.wait()
        if fails:
            raise ValueError
        together.cancel()

    together = asyncio.ensure_future(all_of([long(), other()]))
    with pytest.raises(ValueError if fails else asyncio.CancelledError):
        await together
    assert cleaned_up
