"""How many requests may be on their way to one model.

Knative's activator queues without a bound in practice: requests beyond what the model can do in time wait for the whole
time-out and end as 504. So web has a bound, and a request beyond it is refused at once, with a Retry-After.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from contract import ProblemError, problems
from web.jobs.service_time import ServiceTime


class ConcurrencyLimit:
    """Lets up to `limit` requests through at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._service_time = ServiceTime()  # with the time in the activator's queue

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Around one request; OVERLOADED at the limit, to be tried again when a request is likely to have ended."""
        if self.in_flight >= self.limit:
            raise ProblemError(
                problems.OVERLOADED,
                f"{self.in_flight} requests for this model are under way; no more are taken.",
                retry_after=self._service_time.seconds,
            )
        self.in_flight += 1
        begun = time.monotonic()
        try:
            yield
            self._service_time.learn(time.monotonic() - begun)
        finally:
            self.in_flight -= 1
