"""Giving memory back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys

TRIM_BYTES = 33_554_432
"""After so many freed bytes what can be given back is: that takes some 30 ms."""


class FreedMemory:
    """Errors and their tracebacks hold each other, and with them the requests that they are about, until Python's
    collector looks at them, which it does the more rarely the longer they live. And glibc keeps what was freed below
    anything that is still in use. (Elsewhere, with macOS or musl, the allocator has ways of its own.)"""

    def __init__(self) -> None:
        self._bytes = 0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def add(self, freed: int) -> None:
        """So many bytes were freed."""
        self._bytes += freed
        if self._bytes < TRIM_BYTES:
            return
        self._bytes = 0
        gc.collect()
        if self._trim is not None:
            self._trim(0)
