"""When threads spin and when they sleep, and the pool that has them sleep."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictor.cpu import thread_waiting
from predictor.cpu.thread_waiting import (
    ASLEEP_SECONDS,
    IDLE_NANOSECONDS,
    WINDOW_SECONDS,
    ThreadWaiting,
    Times,
    times_of_process,
)

ROOT = Path(__file__).parents[3]
QUIET, CROWDED = (90, 10), (50, 50)
"""Nanoseconds that threads have run and waited in a window."""


class Pool:
    """In the place of the real one."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        pools.append(self)

    def end(self) -> None:
        pools.remove(self)


pools: list[Pool] = []


def of_machine(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)


@pytest.fixture(autouse=True)
def _pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(thread_waiting, "IdlePool", Pool)
    of_machine(monkeypatch, 2)
    yield
    pools.clear()


class Machine:
    """On which each window is quiet or crowded."""

    def __init__(self, threads: int = 2) -> None:
        self.times: Times | None = (1, 0)
        self.now = 1000.0
        self.waiting = ThreadWaiting(threads, lambda: self.times)

    def go_on(self, window: Times | None, seconds: float = WINDOW_SECONDS) -> bool:
        """For so long. Whether threads sleep afterwards."""
        for _ in range(round(seconds / WINDOW_SECONDS)):
            self.now += WINDOW_SECONDS * 1.001
            self.times = self.times and window and (self.times[0] + window[0], self.times[1] + window[1])
            self.waiting.judge(self.now)
        return bool(pools)


def test_threads_sleep_at_once_where_others_want_the_cores_and_for_a_while_after() -> None:
    machine = Machine()
    assert not machine.go_on(QUIET)
    assert machine.go_on(CROWDED)
    assert machine.go_on(QUIET, ASLEEP_SECONDS / 2)
    assert machine.go_on(CROWDED)
    assert machine.go_on(QUIET, ASLEEP_SECONDS / 2)
    assert len(pools) == 1
    assert not machine.go_on(QUIET, ASLEEP_SECONDS)


def test_threads_spin_in_a_process_that_does_nothing() -> None:
    machine = Machine()
    assert not machine.go_on((0, 0))
    assert machine.go_on(CROWDED)
    assert not machine.go_on((0, 0), 2 * ASLEEP_SECONDS)


def test_whether_anything_was_done() -> None:
    machine = Machine()
    machine.times = (1 + IDLE_NANOSECONDS, 0)
    assert machine.waiting.judge(machine.now)
    machine.times = (2 * IDLE_NANOSECONDS, 0)
    assert not machine.waiting.judge(machine.now)


def test_threads_that_have_ended_say_nothing() -> None:
    machine = Machine()
    machine.go_on((1000, 1000))
    machine.waiting.end()
    assert not machine.go_on((-900, -1000))


def test_threads_sleep_where_times_are_not_known() -> None:
    machine = Machine()
    assert machine.go_on(None, 2 * ASLEEP_SECONDS)


@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (8, 8), (8, 4), (4, 2), (3, 3)])
def test_pools_have_more_threads_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    """Together with that of the thread that computes; libgomp counts the process's first thread, and no other."""
    of_machine(monkeypatch, cores)
    Machine(threads).go_on(CROWDED)
    assert {pool.threads for pool in pools} == {threads}
    assert 1 + (threads - 1) * (1 + len(pools)) > cores >= 1 + (threads - 1) * len(pools)


WATCHED = """if True:
    import os, sys, threading, time
    import torch
    from predictor.cpu import thread_waiting

    def state(thread):  # R: it runs, S: it sleeps
        with open(f"/proc/self/task/{thread}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]

    def threads():
        return set(os.listdir("/proc/self/task"))

    def wait_for(wanted):
        deadline = time.monotonic() + 30
        while state(helper) != wanted and time.monotonic() < deadline:
            torch.ones(2**17).add_(1)
            time.sleep(0.01)
        print(state(helper))

    os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:2]))
    torch.set_num_threads(2)
    before = threads()
    torch.ones(2**17).add_(1)
    [helper] = threads() - before
    wait_for("R")  # it would spin for minutes
    thread_waiting.times_of_process = lambda: None  # as where others want the cores
    thread_waiting.watch_waiting(2)
    wait_for("S")
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="/proc, and two cores")
def test_a_thread_that_waits_sleeps_once_others_want_the_cores() -> None:
    variables = {"PATH": os.environ["PATH"], "GOMP_SPINCOUNT": str(10**12)}
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=90
    )
    assert ended.stdout == "R\nS\n", ended.stderr


def test_a_watch_that_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> Times | None:
        raise OSError("no more threads")

    waiting = ThreadWaiting(2, lambda: (1, 0))
    waiting._read_times = failing
    thread_waiting._watch(waiting)
    assert "threads wait for each other as they do now" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_times_of_this_process() -> None:
    before = times_of_process()
    assert before
    deadline = time.monotonic() + 10
    while (times_of_process() or before)[0] == before[0]:
        assert time.monotonic() < deadline


def test_no_times_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_path: str) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(os, "listdir", missing)
    assert times_of_process() is None


FORKED = """if True:
    import os, sys, time
    import torch
    from predictor.cpu.thread_waiting import IdlePool

    def threads():
        return len(os.listdir("/proc/self/task"))

    if not os.fork():
        torch.set_num_threads(1)
        before = threads()
        pool = IdlePool(3)
        print(threads() - before, torch.get_num_threads())
        pool.end()
        deadline = time.monotonic() + 20
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        print(threads() - before)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_an_idle_pool_has_threads_until_it_ends_in_a_forked_process_too() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "3 1\n0\n", ended.stderr  # the thread itself and its two helpers
