"""What deduplication needs of a store that the replicas of a predictor share."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from contract.cloudevents import CloudEvent


class PendingReply(Protocol):
    """The work for one request. `key` (source, id and perhaps caller) identifies it; a cancellation names its `subject`
    and comes from the same `caller`."""

    key: tuple[str, ...]
    caller: str
    subject: str

    async def reply(self) -> CloudEvent:
        """Do the work. Raises a ProblemError for a transient failure, which is not stored."""

    def cancel(self) -> None:
        """Make `reply` return soon that the request was cancelled; called before `reply`, make it return at once."""


class ReplyStore(Protocol):
    """Replies, cancellations and leases on requests. A store that cannot be reached behaves like an empty one."""

    def lease(self, pending: PendingReply) -> AbstractAsyncContextManager[CloudEvent | None]:
        """Hold the only lease on a request, once no other replica does; the stored reply to it, or None.

        Cancels `pending` when its subject is cancelled meanwhile. Raises a ProblemError (UPSTREAM_TIMEOUT) when another
        replica holds the lease for too long.
        """

    async def put(self, key: tuple[str, ...], reply: CloudEvent) -> None:
        """Store a reply for all replicas."""

    async def cancel(self, caller: str, subject: str) -> None:
        """Cancel what runs for this caller under this subject in any replica, and what is requested so later."""

    async def close(self) -> None:
        """Close the connections."""
