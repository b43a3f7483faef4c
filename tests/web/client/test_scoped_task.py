"""A task that only its own scope cancels."""

from __future__ import annotations

import asyncio

import pytest

from web.client.scoped_task import ScopedTask


async def work(seen: list[str]) -> int:
    try:
        await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise
    seen.append("finished")
    return 7


async def test_the_result() -> None:
    assert await ScopedTask(work([])).result() == 7


async def test_close_cancels_and_waits() -> None:
    seen: list[str] = []
    task = ScopedTask(work(seen))
    await asyncio.sleep(0)
    await task.close()
    assert seen == ["cancelled"]
    assert task.task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await task.result()


async def test_close_before_the_work_has_begun() -> None:
    task = ScopedTask(work([]))
    await task.close()
    assert task.task.cancelled()


async def test_who_only_waits_does_not_cancel_it() -> None:
    seen: list[str] = []
    task = ScopedTask(work(seen))
    waiting = asyncio.ensure_future(asyncio.wait({task.task}))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({task.task})
    assert seen == ["finished"]


async def test_who_waits_for_the_result_cancels_it() -> None:
    seen: list[str] = []
    waiting = asyncio.create_task(ScopedTask(work(seen)).result())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert seen == ["cancelled"]
