"""Draining: after SIGTERM a server finishes what it has accepted, for as long as its grace period allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LAST_SECONDS = 2.0
"""The end of the grace period, in which requests that could not be finished are answered with a problem."""


class Drain:
    """The drain of one server: `begin` starts its clock, `end` cuts off the requests that are still in flight."""

    def __init__(self) -> None:
        self._cut_offs: set[Callable[[], None]] = set()
        self._subscribers: list[Callable[[], None]] = []
        self._begun: float | None = None

    @property
    def seconds(self) -> float:
        """Since it began; 0 before."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def begun(self) -> bool:
        return self._begun is not None

    @property
    def in_flight(self) -> int:
        """Requests that have not been finished."""
        return len(self._cut_offs)

    def begin(self) -> None:
        self._begun = time.monotonic()
        for notify in self._subscribers:
            notify()

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call `notify` when it begins."""
        self._subscribers.append(notify)

    def end(self) -> None:
        for cut_off in list(self._cut_offs):
            cut_off()

    @contextmanager
    def request(self, cut_off: Callable[[], None]) -> Iterator[None]:
        """Around one request. `cut_off` is called when the drain ends before the request does."""
        self._cut_offs.add(cut_off)
        try:
            yield
        finally:
            self._cut_offs.discard(cut_off)
