"""Child processes of the launcher: waiting for one with a deadline, ending all, and being process 1 for one."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_AWAITED = (*FORWARDED, signal.SIGCHLD)

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}

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
    signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, _AWAITED)


@dataclass(frozen=True)
class End:
    """Of a process: its `code`, negative for a signal, and whether a signal was passed on to it before."""

    code: int
    asked: bool

    @property
    def status(self) -> int:
        """As a shell says it."""
        return self.code if self.code >= 0 else 128 - self.code

    @property
    def crash(self) -> str | None:
        """The name of the signal that it brought upon itself."""
        return None if self.asked or -self.code not in _CRASHES else signal.Signals(-self.code).name


def stand_for(pid: int) -> End:
    """Pass signals on to a child, and reap all that ends, until the child does."""
    # Waited for, and not handled: a signal that comes just before a wait for children would be handled after it.
    hold_signals(True)
    asked = False
    while True:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == pid:
                    return End(os.waitstatus_to_exitcode(ended[1]), asked)
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            asked = True
            with suppress(ProcessLookupError):
                os.kill(pid, number)
