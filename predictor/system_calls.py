"""What Python has no functions for: prctl(2) of Linux, and malloc_trim(3) of glibc. Elsewhere nothing happens."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PTRACER = 0x59616D61

_ANYBODY = 2**64 - 1


def end_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies; end at once if that is another one by now."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os._exit(1)


def adopt_orphans() -> bool:
    """Become the parent of each process below this one whose own parent has ended; False where that is not to be."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def give_up_privileges() -> bool:
    """Have no program that this process, or one of its children from now on, executes gain a capability; False where
    that is not to be."""
    return _prctl(PR_SET_NO_NEW_PRIVS, 1)


def allow_tracing() -> bool:
    """Let programs of the same user trace this process, where only its parents may (Yama)."""
    return _prctl(PR_SET_PTRACER, _ANYBODY)


def return_free_memory() -> None:
    """Give the system back what is free. glibc keeps small pieces, and large ones once it has grown used to them."""
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    zero = ctypes.c_ulong(0)
    return bool(_library().prctl(option, ctypes.c_ulong(value), zero, zero, zero) == 0)


def _library() -> Any:
    import ctypes  # takes milliseconds, which no restore waits for in a container

    return ctypes.CDLL(None)
