"""Child processes that end when their parent does, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from scripts.project import ROOT

LISTEN_FD = 3
"""The descriptor of the first socket that is passed on, by sd_listen_fds(3)."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""


def spawn(
    command: Sequence[str], variables: Mapping[str, str], listener: socket.socket | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in the project's folder, with more environment variables; raises an OSError if that fails.

    A `listener` is passed on by systemd's convention, sd_listen_fds(3). Only the main thread may call this: Linux
    counts the thread that started a child as its parent.
    """
    parent = os.getpid()

    def prepare() -> None:  # in the child; the exec that follows takes the variables from os.environ
        _end_with(parent)
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


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os._exit(1)
