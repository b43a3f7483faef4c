"""How many threads compute a model on a CPU, and how they wait for each other.

They wait asleep beside others. By default libgomp's threads wait by spinning for milliseconds, because what they wait
for comes soon. It does not where the thread that is waited for has no core, and the one that spins has it: another
predictor's, or any busy process's. On two cores, spinning and asleep, the painter draws 6.8 and 4.8 pictures/s alone,
1.5 and 3.7 beside the poet, and 0.1 and 2.8 beside two loops that never end. There a short spin is worse than none,
too: asleep 4.0 in another run, after 1,000 turns 2.6, after 5,000 turns 1.5. So threads spin only while nobody else
wants the cores (predictor.cpu.thread_waiting), and sleep where that cannot be seen.

A small language model has one thread for a token: its operations are over before a second thread has woken up. The
poet writes 410 tokens/s with two threads that spin and 490 with one; beside the painter 110 and 510.

No model has more threads than the container may use cores. Those above the quota use it up, until the kernel stops all
of them for the rest of the period: with a quota of one core, two threads write a token of the poet in 1.5 to 3 times
the time of one. With 1.5 cores one thread is quicker, too, so the quota is rounded down.

A snapshot is made on another machine than its pods run on, often without their quota, so that SNAPSHOT_THREADS stands
in for it. It is a limit, which leaves a small model its one thread; OMP_NUM_THREADS is what the operator says instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from predictor.cpu.quota import cpu_quota
from predictor.cpu.thread_waiting import times_of_process, watch_waiting

_SAY_HOW = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # to any library, to libgomp, and to libomp

SPIN_TURNS = "50000"
"""Of a loop, in which a thread waits before it sleeps: a millisecond or two, where libgomp's own are six times as many.
They outlast what comes between two operations, and no more. Threads that are to sleep do so without any turn, as
OMP_WAIT_POLICY says; without that they would have a hundred first."""

_SWITCHED = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": SPIN_TURNS}

SMALL = 10_000_000
"""Parameters of a language model below which one thread computes it. With 15 million two are quicker by a tenth (eight
rows) to a quarter (one row), with 40 million by a quarter to two thirds."""

MANY_POSITIONS = 128
"""Of prompts, from which on all threads compute a small model, too: with 5 million parameters 8 prompts of 23 tokens
take 9 ms in place of 14, and 18 in place of 16 where others want the cores."""


# By process: a forked one has none of its parent's threads.
_chosen: dict[int, int] = {}
_watched: set[int] = set()


def prepare_threads() -> None:
    """Say how threads wait. Call it before torch or numpy is imported, here or in the process that this one is forked
    from. What is set already stays."""
    if not os.environ.keys() & set(_SAY_HOW):
        if can_switch():
            os.environ["GOMP_SPINCOUNT"] = SPIN_TURNS
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # of those that are to sleep, and of libomp's, which always do
    # Pools that are of no use here: numpy computes nothing large, and prompts are encoded one by one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def can_switch(root: Path = Path("/")) -> bool:
    """Whether libgomp's threads can be switched between spinning and sleeping: nobody else has said how they wait,
    times are known, and neither quota nor operator leaves cores free. A thread that spins uses up a quota."""
    said = {name: os.environ[name] for name in _SAY_HOW if name in os.environ}
    if (said and said != _SWITCHED) or times_of_process() is None:
        return False
    cores = len(os.sched_getaffinity(0))
    return min(thread_count(cores, root=root), cpu_quota(root) or cores) >= cores > 1


def limit_threads(parameters: int | None = None, root: Path = Path("/")) -> None:
    """Choose torch's number of threads, for a language model of so many parameters or for anything else.

    It follows from the model and the machine, never from a measurement: how work is split decides how a CPU rounds.
    Only `threads_for` has other numbers. A thread that computes calls `adopt_threads` first. From now on it is watched
    how several of them wait.
    """
    import torch

    _chosen[os.getpid()] = thread_count(_cores(), parameters, root)
    torch.set_num_threads(_chosen[os.getpid()])
    if os.getpid() not in _watched and can_switch(root):
        _watched.add(os.getpid())
        watch_waiting(thread_count(_cores(), root=root))


@contextmanager
def threads_for(positions: int) -> Iterator[None]:
    """Let this thread compute a forward of so many positions with all threads, where a small model has one and there
    are MANY_POSITIONS."""
    import torch

    chosen, most = torch.get_num_threads(), most_threads()
    if positions < MANY_POSITIONS or chosen == most:
        yield
        return
    torch.set_num_threads(most)
    try:
        yield
    finally:
        torch.set_num_threads(chosen)


@cache
def most_threads() -> int:
    """That compute anything but a small language model, and a small one's long prompts, too."""
    return thread_count(_cores())


def adopt_threads() -> None:
    """Have this thread, which has not computed yet, use the chosen number. By itself it would have the last one that
    any thread has set, and MKL all cores."""
    import torch

    torch.set_num_threads(_chosen.get(os.getpid()) or torch.get_num_threads())


def thread_count(cores: int, parameters: int | None = None, root: Path = Path("/")) -> int:
    """As many as OMP_NUM_THREADS says, or as the model, the container's quota and SNAPSHOT_THREADS allow."""
    if asked := _number("OMP_NUM_THREADS"):  # a process that was forked reads here what torch has not seen
        return asked
    if parameters is not None and parameters < SMALL:
        return 1
    return max(1, min(cores, int(cpu_quota(root) or cores), snapshot_threads() or cores))


def snapshot_threads() -> int | None:
    """Most threads of a snapshot and of the pods that are to restore it; None where nobody has said."""
    return _number("SNAPSHOT_THREADS")


def _number(variable: str) -> int | None:
    first = os.environ.get(variable, "").partition(",")[0]  # the others are for nested regions
    return int(first) or None if first.isdecimal() else None


@cache
def _cores() -> int:
    """torch's own number, which only the first call can see."""
    import torch

    return int(torch.get_num_threads())
