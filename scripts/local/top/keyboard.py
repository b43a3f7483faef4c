"""Keys as they are pressed, where there is a terminal to press them at."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager


class Keyboard:
    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def pressed(self, key: str, seconds: float) -> bool:
        """Whether `key` is pressed in this time; without a terminal, the time just passes. At its end, too."""
        end = time.monotonic() + seconds
        while self._descriptor is not None and (left := end - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                given = os.read(self._descriptor, 64)
                if key.encode() in given:
                    return True
                if not given:  # the terminal has gone
                    self._descriptor = None
        time.sleep(max(end - time.monotonic(), 0))
        return False


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The terminal is left as it was."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
