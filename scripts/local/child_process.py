"""Processes that end when the one who started them does, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTEN_FD = 3
"""Where systemd's convention has the socket that is handed over."""


def spawn(
    command: Sequence[str], variables: Mapping[str, str], listener: socket.socket | None = None
) -> subprocess.Popen[bytes]:
    """Start a child, with more environment variables and perhaps a listening socket, handed over as systemd does it.

    To be called by the main thread: for Linux a child's parent is the thread that has started it.
    """
    parent = os.getpid()

    def prepare() -> None:  # in the child, which ends in `exec` with what is in os.environ then
        _end_with(parent)
        os.environ.update(variables)
        if listener is not None:
            os.dup2(listener.fileno(), LISTEN_FD)
            os.set_inheritable(LISTEN_FD, True)  # which dup2 leaves as it is where both are the same
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")

    # A session of its own keeps the terminal's Ctrl-C from the children: they are stopped in order, by us. No file
    # descriptor is inherited but those that are made to be, which is the reason why none needs to be closed.
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False, preexec_fn=prepare
    )


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent dies (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os._exit(1)
