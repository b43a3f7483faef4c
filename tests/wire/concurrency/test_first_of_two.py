"""The first of two: work and something else to wait for."""

from __future__ import annotations

import asyncio

import pytest

from wire.concurrency.first_of_two import finishes_first


async def forever(cleaned: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        cleaned.append("up")


async def test_work_that_finishes_first_is_true() -> None:
    other: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert await finishes_first(asyncio.sleep(0), other)
    assert not other.done()


async def test_work_is_cancelled_and_cleaned_up_when_the_other_is_done() -> None:
    other: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(other.set_result, None)
    cleaned: list[str] = []
    assert not await finishes_first(forever(cleaned), other)
    assert cleaned == ["up"]


async def test_work_is_cancelled_when_the_time_is_over() -> None:
    other: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cleaned: list[str] = []
    assert not await finishes_first(forever(cleaned), other, 0.01)
    assert cleaned == ["up"]
    assert not other.done()


async def test_work_is_cancelled_with_its_caller() -> None:
    other: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cleaned: list[str] = []
    caller = asyncio.create_task(finishes_first(forever(cleaned), other))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert cleaned == ["up"]


async def test_an_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await finishes_first(fail(), asyncio.get_running_loop().create_future())


async def test_an_error_of_the_clean_up_is_raised() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError

    other: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(other.set_result, None)
    with pytest.raises(LookupError):
        await finishes_first(fail_when_cancelled(), other)
