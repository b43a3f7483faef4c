"""Keys as they are pressed, where there is a terminal to press them at, and the signals that end a program."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Keyboard:
    """At a `terminal`, if there is one; `signals` are read from a pipe."""

    def __init__(self, signals: int, *terminal: int) -> None:
        self._signals = signals
        self._descriptors = {signals, *terminal}

    def pressed(self, key: str, seconds: float) -> bool:
        """Whether `key` is pressed in this time, or a signal has come, before it perhaps."""
        end = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select(list(self._descriptors), [], [], max(end - time.monotonic(), 0))
            if not ready:
                return False
            for descriptor in ready:
                given = os.read(descriptor, 64)
                if descriptor == self._signals or key.encode() in given:
                    return True
                if not given:  # the terminal has gone
                    self._descriptors.remove(descriptor)


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The terminal, and what signals do, is left as it was. Within, no signal interrupts what is being done: an
    exception at any point of a drawing might be lost there."""
    told, tell = os.pipe()
    handlers = {number: signal.signal(number, lambda *_: os.write(tell, b"!")) for number in SIGNALS}
    try:
        if not sys.stdin.isatty():
            yield Keyboard(told)
            return
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        try:
            yield Keyboard(told, descriptor)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(tell)
