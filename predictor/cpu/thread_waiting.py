"""Whether OpenMP's threads wait spinning or asleep: as others want the cores or not.

libgomp's threads spin for milliseconds, unless all its pools together have more threads than there are cores: then they
sleep nearly at once. Every thread that has computed in parallel has a pool until it ends. So idle threads with pools
have all others wait asleep, and their end has them spin again.

Others want the cores where this process's threads could run and have none. Linux counts the nanoseconds of both.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

WINDOW_SECONDS = 0.1
"""How long times are summed up before they are judged."""

CROWDED = 0.25
"""Part of their time in which threads that could run had no core, from which on others want the cores. The painter
alone on two cores has 0.1, spinning or asleep, and beside the poet or two endless loops 0.35 to 0.55."""

ASLEEP_SECONDS = 2.0
"""How long nobody must have wanted the cores before threads spin again."""

IDLE_NANOSECONDS = 5_000_000
"""A process that has run for less in a window is idle."""

IDLE_SECONDS = 0.5
"""How long the next window of an idle process is, so that it costs nothing."""

Times = tuple[int, int]
"""Nanoseconds that threads have run, and have waited for a core."""


class ThreadWaiting:
    """Of one process, where at most `threads` compute together: spinning at first. `read_times` returns None where
    times are not known, and threads sleep."""

    def __init__(self, threads: int, read_times: Callable[[], Times | None]) -> None:
        self._threads = threads
        self._read_times = read_times
        self._times = read_times()
        self._crowded_at = -math.inf
        self._pools: list[IdlePool] = []

    def judge(self, now: float) -> bool:
        """Decide how threads wait from now on, by the times since the last call, and a clock's seconds. Whether the
        process has done anything since then."""
        before, self._times = self._times, self._read_times()
        ran, waited = _since(before, self._times)
        if waited > CROWDED * (ran + waited):
            self._crowded_at = now
            if not self._pools:
                self._pools = [IdlePool(self._threads) for _ in range(_pools_that_fill_the_cores(self._threads))]
        elif now - self._crowded_at >= ASLEEP_SECONDS:
            self.end()
        return ran >= IDLE_NANOSECONDS

    def end(self) -> None:
        """Have threads spin, as they do without this."""
        while self._pools:
            self._pools.pop().end()


def _since(before: Times | None, after: Times | None) -> Times:
    """What came between two times, without that of threads that have ended. Where they are not known, all of it was
    waiting."""
    if before is None or after is None:
        return 0, 1
    return max(0, after[0] - before[0]), max(0, after[1] - before[1])


def watch_waiting(threads: int) -> None:
    """Decide from now on, on a thread of its own, how `threads` that compute wait for each other."""
    waiting = ThreadWaiting(threads, times_of_process)
    threading.Thread(target=_watch, args=(waiting,), name="thread-waiting", daemon=True).start()


def _watch(waiting: ThreadWaiting) -> None:
    seconds = WINDOW_SECONDS
    try:
        while True:
            time.sleep(seconds)
            seconds = WINDOW_SECONDS if waiting.judge(time.monotonic()) else IDLE_SECONDS
    except Exception:
        log.exception("threads wait for each other as they do now from now on, whoever wants the cores")


class IdlePool:
    """A pool of threads that compute nothing."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._ended = threading.Event()
        made = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(made,), name="idle-pool", daemon=True)
        self._thread.start()
        made.wait()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _hold(self, made: threading.Event) -> None:
        import torch

        try:
            chosen = torch.get_num_threads()
            torch.set_num_threads(self._threads)
            torch.ones(2**17).add_(1)  # large enough to be computed in parallel
            torch.set_num_threads(chosen)  # other threads begin with the last number that any has set
        finally:
            made.set()
        self._ended.wait()


def _pools_that_fill_the_cores(threads: int) -> int:
    """Beside the one that computes: torch may have a thread for two cores, where these are two halves of one."""
    others = max(1, threads - 1)
    return max(1, -(-len(os.sched_getaffinity(0)) // others) - 1)


def times_of_process() -> Times | None:
    """Of all threads that this process has now."""
    ran = waited = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                with open(f"/proc/self/task/{thread}/schedstat", "rb", buffering=0) as file:
                    first, second, _ = file.read().split()
                ran, waited = ran + int(first), waited + int(second)
    except (OSError, ValueError):
        return None
    return (ran, waited) if ran else None
