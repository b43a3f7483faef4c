"""Child processes that end when their parent does, however it ends."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from predictor.system_calls import end_with
from predictor.systemd import LISTEN_FD
from scripts.project import ROOT


class ChildProcess(Protocol):
    """What subprocess.Popen has, as far as it is used of a predictor's process."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def spawn(
    command: Sequence[str], variables: Mapping[str, str], listener: socket.socket | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in the project's folder, with more environment variables; raises an OSError if that fails.

    A `listener` is passed on by systemd's convention, sd_listen_fds(3). Only the main thread may call this: Linux
    counts the thread that started a child as its parent.
    """
    parent = os.getpid()

    def prepare() -> None:  # in the child; the exec that follows takes the variables from os.environ
        end_with(parent)
        os.environ.update(variables)
        if listener is not None:
            os.dup2(listener.fileno(), LISTEN_FD)
            os.set_inheritable(LISTEN_FD, True)  # dup2 does not do this where both descriptors are the same
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")

    # A session of its own keeps the terminal's Ctrl-C from the children: the supervisor stops them in order.
    # Descriptors need not be closed: Python makes none inheritable unless it is told to (PEP 446).
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False, preexec_fn=prepare
    )


def reap_orphans(known: Collection[int]) -> None:
    """Take note of the ends of processes below us whose own parent had ended, and of no other: those are `known`."""
    with suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in known:
                return  # until whoever waits for it has its status
            os.waitpid(ended.si_pid, os.WNOHANG)
