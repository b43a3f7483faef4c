"""Memory that was freed, and that the process keeps for itself until it is told to give it back."""

from __future__ import annotations

import ctypes


def return_memory() -> None:
    """Give the system what was freed on the host. glibc keeps small pieces, and large ones once it has grown used to
    them; other C libraries have no such call, and nothing happens."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)
