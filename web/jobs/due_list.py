"""Jobs whose end is to be delivered to a webhook, by when that is due.

A job stands there from its beginning, as due at its deadline, and its end makes it due at once. So none is lost whoever
ends it and whatever is killed meanwhile: an end that a replica of commit bcaa36b writes, which knows no webhooks, is
delivered at the deadline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A job that this replica has claimed the delivery of, until then."""

    job: str
    until: float


class DueList(ABC):
    """Times are in seconds since 1970. All methods raise an UNAVAILABLE problem when the list cannot be reached."""

    @abstractmethod
    async def claim(self, now: float, lease_seconds: float, most: int) -> list[DueDelivery]:
        """Up to so many of those that are due, the longest due first. Each is due again when its lease has run out,
        as after the end of the replica that has claimed it."""

    @abstractmethod
    async def settle(self, delivery: DueDelivery, again: float | None = None) -> None:
        """It is due again then, or never. Nothing where it has become due anew since it was claimed."""
