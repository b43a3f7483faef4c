"""A server's process and all that it has started: their memory, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

import psutil

STOP_SECONDS = 3.0


def process_tree(pid: int) -> list[int]:
    """The process and its descendants."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def resident_bytes(pid: int) -> int:
    """Resident memory of the tree. Pages that several processes share count once: forked workers share most of them."""
    found = 0
    for one in process_tree(pid):
        with suppress(psutil.NoSuchProcess):  # it has ended
            found += psutil.Process(one).memory_full_info().pss
    return found


def end(child: subprocess.Popen[bytes]) -> None:
    """Terminate the process, which leads a group of its own; what it leaves of that is killed."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
