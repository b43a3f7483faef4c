"""A process that ends when another one does, however that ends (Linux only)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Of prctl(2)."""


def end_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies; end at once if that is another one by now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os._exit(1)


def adopt_orphans() -> bool:
    """Become the parent of each process below this one whose own parent has ended; False where that is not to be."""
    return sys.platform == "linux" and bool(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0)
