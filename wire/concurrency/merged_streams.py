"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def merged(streams: Sequence[AsyncIterable[Item]]) -> AsyncGenerator[tuple[int, Item]]:
    """The items of all as they come, each with the number of its stream, until all have ended. Raises what one of them
    raises. Leaving it cancels those that go on; who has made them closes them."""
    if len(streams) == 1:
        async for item in streams[0]:
            yield 0, item
        return
    items: asyncio.Queue[tuple[int, Item] | Exception | None] = asyncio.Queue(len(streams))

    async def collect(number: int, stream: AsyncIterable[Item]) -> None:
        try:
            async for item in stream:
                await items.put((number, item))
        except Exception as error:
            await items.put(error)
        else:
            await items.put(None)

    tasks = [asyncio.create_task(collect(number, stream)) for number, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            found = await items.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
