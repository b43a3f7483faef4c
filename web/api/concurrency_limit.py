"""How much may be on its way to one model.

Knative's activator queues without a bound in practice: past what the model can do in time, requests wait for the whole
time-out and end as 504. So the bound is here, and what is over it is told at once when to come again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from contract import ProblemError, problems
from web.jobs.service_time import ServiceTime


class ConcurrencyLimit:
    """Lets up to `places` requests through at a time."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.in_flight = 0
        self._pace = ServiceTime()  # queueing behind included

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around one request; OVERLOADED, with the time until a place is likely to be free, when all are taken."""
        if self.in_flight >= self.places:
            raise ProblemError(
                problems.OVERLOADED,
                f"{self.in_flight} requests for this model are under way; no more are taken.",
                retry_after=self._pace.seconds,
            )
        self.in_flight += 1
        begun = time.monotonic()
        try:
            yield
            self._pace.learn(time.monotonic() - begun)
        finally:
            self.in_flight -= 1
