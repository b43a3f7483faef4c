"""Bars on long commands, on stderr. Nothing at all is shown where that is no terminal, or where rich is not installed:
then a command is as if this were not there.

A bar is drawn when something is done, and not by a thread: nothing runs beside what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")

DRAW_SECONDS = 0.1
"""Shortest time from one drawing to the next."""


class Bar:
    """Shows nothing."""

    def advance(self, steps: float = 1) -> None:
        """So many more of them are done."""

    def reach(self, steps: float) -> None:
        """So many of them are done, all together."""


class _ShownBar(Bar):
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task
        self._drawn = 0.0

    def advance(self, steps: float = 1) -> None:
        self._bars.advance(self._task, steps)
        self._draw()

    def reach(self, steps: float) -> None:
        self._bars.update(self._task, completed=steps)
        self._draw()

    def _draw(self) -> None:
        if time.monotonic() - self._drawn >= DRAW_SECONDS:
            self._bars.refresh()
            self._drawn = time.monotonic()


_open: list[Progress] = []
"""The one whose bars are shown, once for each of them: a bar within another one is a line below it."""


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Bar]:
    """A bar of so many steps, which is gone at the end."""
    bars = _open[-1] if _open else _new_bars()
    if bars is None:
        yield Bar()
        return
    if not _open:
        bars.start()
    _open.append(bars)
    task = bars.add_task(description, total=total)
    bars.refresh()
    try:
        yield _ShownBar(bars, task)
    finally:
        _open.remove(bars)
        bars.remove_task(task)
        if not _open:
            bars.stop()


def tracked(items: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """The items, with a bar of how many are done."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as bar:
        for item in items:
            yield item
            bar.advance()


async def gathered(work: Iterable[Awaitable[T]], description: str) -> list[T]:
    """As asyncio.gather, with a bar of how many have ended."""
    awaited = list(work)
    with progress(description, len(awaited)) as bar:

        async def end(one: Awaitable[T]) -> T:
            result = await one
            bar.advance()
            return result

        return list(await asyncio.gather(*map(end, awaited)))


def announced(items: Iterable[T], description: str) -> Iterator[T]:
    """As `tracked` where each step prints lines of its own, as a program that it starts does: a line before each."""
    listed = list(items)
    for number, item in enumerate(listed, start=1):
        if sys.stderr.isatty():
            print(f"{description} {number} of {len(listed)}: {item}", file=sys.stderr, flush=True)
        yield item


def _new_bars() -> Progress | None:
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(
        *columns,
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # what is printed for a file goes there
    )
