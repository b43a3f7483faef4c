"""How many requests may be on their way to one model, and whose is next.

Knative's activator queues without a bound in practice, and first come first served: requests beyond what the model can
do in time wait for the whole time-out and end as 504, and one caller's many keep all others waiting. So web has a
bound. Requests beyond it wait here, those of the callers in turn; and where too many wait, one of the caller with most
of them is refused, with a Retry-After.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from contract import ProblemError, problems
from web.jobs.service_time import ServiceTime
from web.metrics import OLDEST_WAITING, REJECTED, RUNNING, WAITING
from wire.concurrency.fair_queue import FairQueue

SPARE = 20
"""One more place for so many, for callers with nothing in flight: where all others end at the same moment, a caller
that waits for one of their places would be just too late for a slot of the model, and wait once more."""


@dataclass(slots=True, eq=False)
class Place:
    """Of one request, in flight or among those that wait."""

    caller: str
    let_through: asyncio.Future[bool]
    """False for one that is refused after all."""
    begun: float | None = None
    """When it was let through."""


class ConcurrencyLimit:
    """Lets up to `limit` requests to a model through at a time, and a few of callers that have none in flight; up to
    `most_waiting` wait for that. The model's metrics show it, which another thread reads."""

    def __init__(self, model: str, limit: int, most_waiting: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._of_callers: Counter[str] = Counter()  # how many of each are in flight
        self._most_waiting = most_waiting
        self._waiting = FairQueue[str, Place]()
        self._came: OrderedDict[Place, float] = OrderedDict()  # those that wait, by when they came
        self._oldest_came: float | None = None
        self._service_time = ServiceTime()  # with the time in the activator's queue
        self._rejected = REJECTED.labels(model)
        RUNNING.labels(model).set_function(lambda: self.in_flight)
        WAITING.labels(model).set_function(lambda: len(self._waiting))
        OLDEST_WAITING.labels(model).set_function(self._oldest_seconds)

    @contextmanager
    def acquire(self, caller: str, cost: float) -> Iterator[Place]:
        """Around one request of a caller, which goes on once `wait` has let it through. OVERLOADED where too many
        wait."""
        place = Place(caller, asyncio.get_running_loop().create_future())
        spare = 0 if self._of_callers[caller] else self.limit // SPARE
        free = self.in_flight < self.limit + spare and not self._waiting.items(caller)
        if not free and len(self._waiting) >= self._most_waiting:
            self._refuse_one(caller)
        self._waiting.put(caller, place, cost)
        if free:
            self._let_through(self._waiting.take(caller))  # which counts: the next place is somebody else's
        else:
            self._came[place] = time.monotonic()
            self._note_oldest()
        try:
            yield place
            if place.begun is not None:
                self._service_time.learn(time.monotonic() - place.begun)
        finally:
            self._waiting.remove(caller, place)
            self._waits_no_more(place)
            if place.begun is not None:
                self._of_callers -= Counter([caller])
                self.in_flight -= 1
                self._let_next_through()

    async def wait(self, place: Place, seconds: float) -> None:
        """Return once this request is let through. OVERLOADED where it is not within so many seconds, or another one
        needs its place more."""
        try:
            async with asyncio.timeout(seconds):
                let_through = await place.let_through
        except TimeoutError:
            raise self._overloaded(f"None has ended within the {seconds:g} s that this one had.") from None
        if not let_through:
            raise self._overloaded("Others have fewer waiting.")

    def _let_through(self, place: Place) -> None:
        self._of_callers[place.caller] += 1
        self.in_flight += 1
        self._waits_no_more(place)
        place.begun = time.monotonic()
        place.let_through.set_result(True)

    def _let_next_through(self) -> None:
        while self.in_flight < self.limit and (place := self._waiting.pop()) is not None:
            if not place.let_through.done():  # or it has been cancelled, and is just leaving
                self._let_through(place)

    def _refuse_one(self, caller: str) -> None:
        """Of the caller with most that wait, the one that came last: which may be the one that is coming."""
        last = self._waiting.make_room(caller)
        if last is None:
            raise self._overloaded("No more are taken.")
        if not last.let_through.done():
            last.let_through.set_result(False)

    def _overloaded(self, why: str) -> ProblemError:
        """To be tried again when those that wait now have probably ended."""
        self._rejected.inc()
        waiting = len(self._waiting)
        return ProblemError(
            problems.OVERLOADED,
            f"{self.in_flight} requests for this model are under way and {waiting} wait. {why}",
            retry_after=self._service_time.seconds * (1 + waiting / self.limit),
        )

    def _waits_no_more(self, place: Place) -> None:
        if self._came.pop(place, None) is not None:
            self._note_oldest()

    def _note_oldest(self) -> None:
        self._oldest_came = next(iter(self._came.values()), None)

    def _oldest_seconds(self) -> float:
        came = self._oldest_came
        return 0.0 if came is None else time.monotonic() - came
