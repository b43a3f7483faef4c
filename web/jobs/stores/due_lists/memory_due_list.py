"""Deliveries that are due, in the memory of one replica."""

from __future__ import annotations

import heapq

from web.jobs.due_list import DueDelivery, DueList


class MemoryDueList(DueList):
    """As many as there are jobs with a webhook."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def add(self, job: str, at: float) -> None:
        self._due[job] = at

    def hasten(self, job: str, at: float) -> None:
        """It is due then, if it is to be delivered at all."""
        if job in self._due:
            self._due[job] = at

    def forget(self, job: str) -> None:
        self._due.pop(job, None)

    async def claim(self, now: float, lease_seconds: float, most: int) -> list[DueDelivery]:
        due = ((at, job) for job, at in self._due.items() if at <= now)
        claimed = [DueDelivery(job, now + lease_seconds) for _, job in heapq.nsmallest(most, due)]
        self._due.update((delivery.job, delivery.until) for delivery in claimed)
        return claimed

    async def settle(self, delivery: DueDelivery, again: float | None = None) -> None:
        if self._due.get(delivery.job) != delivery.until:
            return
        if again is None:
            self.forget(delivery.job)
        else:
            self._due[delivery.job] = again
