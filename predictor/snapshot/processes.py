"""Child processes of the launcher: waiting for one with a deadline, ending all, and being process 1 for one."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

KILL_SECONDS = 1.0
"""Longest that killed processes may take to be gone: what one does in the kernel ends first."""


def wait_for_exit(pid: int, deadline: float) -> int | None:
    """The exit status of a child, negative for a signal; None when the deadline, on time.monotonic, comes first."""
    file = os.pidfd_open(pid)
    try:
        if not readable(file, deadline):
            return None
    finally:
        os.close(file)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def readable(file: int, deadline: float) -> bool:
    """Wait until there is something to read, or the deadline comes."""
    return _polled(file, select.POLLIN, deadline)


def writable(file: int, deadline: float) -> bool:
    """Wait until there is room to write, or the deadline comes."""
    return _polled(file, select.POLLOUT, deadline)


def _polled(file: int, what: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(file, what)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def kill_all() -> None:
    """Kill all descendants of this process, and wait for their end."""
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        for pid in _descendants():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:  # there is none
            return
        if time.monotonic() > deadline:
            return
        time.sleep(0.002)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def hold_signals(held: bool) -> None:
    """Have signals wait, or come again."""
    signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, FORWARDED)


def stand_for(pid: int) -> int:
    """Pass signals on to a child, reap all that ends, and return the child's exit status, as a shell says it."""
    # Waited for, and not handled: a signal that comes just before a wait for children would be handled after it.
    awaited = (*FORWARDED, signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == pid:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return code if code >= 0 else 128 - code
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
