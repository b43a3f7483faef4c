"""The loops that web runs beside its requests. None of them ends silently.

A loop does one turn after the other. A turn that fails for an unforeseen reason is logged and, after a growing pause,
made again: what broke may have been one connection. A loop that fails again and again ends the process, which says so:
whoever runs it starts a new one, and other replicas take its jobs over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator

from contract import ProblemError

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Before the next turn after one that could not reach the store."""

FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.1, 30.0
"""After the first unforeseen failure, and at most. It doubles with each in a row."""

MOST_FAILURES = 20
"""Unforeseen failures in a row, over about six minutes, after which the process ends."""

FAILING = 5
"""Unforeseen failures in a row, over one or two seconds, after which a loop is not taken to turn any more."""

IDLE_SECONDS = 10.0
"""Longest that a turn waits for something to do, so that one that is stuck can be told from it."""

STALLED_SECONDS = 600.0
"""A loop that has not gone round for so long is stuck, or for four times `store_patience_seconds` where that is longer:
a turn waits out one outage of the store, and ends with it."""


class BackgroundLoop:
    """Does `turn` again and again until it is closed."""

    def __init__(self, name: str, turn: Callable[[], Awaitable[object]], give_up: Callable[[], None]) -> None:
        self.name = name
        self.failures = 0
        """Unforeseen ones, in a row."""
        self._turn = turn
        self._give_up = give_up
        self._went_round = time.monotonic()
        self._logged: set[type[BaseException]] = set()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name=name)

    @property
    def seconds(self) -> float:
        """Since it last went round, or began."""
        return time.monotonic() - self._went_round

    def went_round(self) -> None:
        """It goes on as it should. Called after every turn; a turn that lasts calls it, too."""
        self.failures = 0
        self._went_round = time.monotonic()

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def close(self) -> None:
        self._closing = True
        while not self._task.done():  # redis-py may lose a cancellation: see web.jobs.stores.redis_connection
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    async def _run(self) -> None:
        try:
            while self.failures < MOST_FAILURES:
                pause = await self._go_round()
                if pause:
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            log.critical("%s has failed %d times in a row: the process ends", self.name, self.failures)
        except asyncio.CancelledError:
            raise
        except BaseException:
            log.critical("%s cannot go on: the process ends", self.name, exc_info=True)
            raise
        finally:
            if not self._closing:
                self._give_up()

    async def _go_round(self) -> float:
        """One turn; how long to pause after it."""
        task = asyncio.current_task()
        assert task is not None
        pause = 0.0
        try:
            await self._turn()
        except ProblemError:  # the store cannot be reached, which it has logged
            pause = RETRY_SECONDS
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            return self._failed(error)  # by a scope in what it called
        except Exception as error:
            return self._failed(error)
        self.went_round()
        return pause

    def _failed(self, error: BaseException) -> float:
        self.failures += 1
        if type(error) not in self._logged:
            self._logged.add(type(error))
            log.error("%s has failed and is tried again", self.name, exc_info=error)
        return min(FIRST_PAUSE_SECONDS * 2.0 ** (self.failures - 1), MOST_PAUSE_SECONDS)


class BackgroundLoops:
    """All of one process. `give_up` has it end, with a status that says that something went wrong."""

    def __init__(self, give_up: Callable[[], None] = lambda: None, stalled_seconds: float = STALLED_SECONDS) -> None:
        self.stalled_seconds = stalled_seconds
        self._give_up = give_up
        self._loops: set[BackgroundLoop] = set()

    def start(self, name: str, turn: Callable[[], Awaitable[object]]) -> BackgroundLoop:
        """`turn` is one round of the loop, and takes IDLE_SECONDS at most where nothing is to be done."""
        loop = BackgroundLoop(name, turn, self._give_up)
        self._loops.add(loop)
        return loop

    async def close(self, *loops: BackgroundLoop) -> None:
        """End these loops."""
        self._loops.difference_update(loops)
        await asyncio.gather(*(loop.close() for loop in loops))

    def __iter__(self) -> Iterator[BackgroundLoop]:
        return iter(self._loops)

    @property
    def stalled(self) -> list[BackgroundLoop]:
        """Those that have ended, or do not go round any more."""
        stalled = (loop for loop in self._loops if loop.ended or loop.seconds > self.stalled_seconds)
        return sorted(stalled, key=lambda loop: loop.name)

    @property
    def failing(self) -> list[BackgroundLoop]:
        """Those that have failed again and again, and have not gone round since."""
        return sorted((loop for loop in self._loops if loop.failures >= FAILING), key=lambda loop: loop.name)
