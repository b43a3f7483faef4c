"""Where jobs are kept: their records, their logs, and each model's queue.

One replica keeps them in memory (`web.jobs.stores.memory_store`); several replicas share a Redis or Valkey
(`web.jobs.stores.redis_store`).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from contract import JobState, ProblemError, Webhook, problems
from web.jobs.due_list import DueList
from web.jobs.record import BEGINNING, Claim, JobRecord, LogEntry, QueuePlace
from web.telemetry.store_usage import StoreUsage

PLACE_SECONDS = 2.0
"""How old what is said of a job's place in its queue may be: any number may ask for it all the time."""

REQUESTS_SHARE = 0.25
"""Of a store's bytes: most that the requests of jobs which have not ended may take."""

FULL_SECONDS = 5
"""Retry-After of a store that is full."""

CLAIM_SECONDS = 5.0
"""Longest that a claim waits for a job; then there is none."""


RETRY_AFTER_SECONDS = 5
"""Retry-After where the store cannot be reached, or does not answer in time."""


@asynccontextmanager
async def answers_within(seconds: float) -> AsyncGenerator[None]:
    """An UNAVAILABLE problem where what is asked of the store takes longer, as for a client that waits no longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        detail = f"The store of the generations has not answered within {seconds:g} s."
        raise ProblemError(problems.UNAVAILABLE, detail, retry_after=RETRY_AFTER_SECONDS) from error


class ClaimLost(Exception):
    """The job was claimed again since: nothing more of this run is written."""


class ModelDocuments(ABC):
    """What is known of each model, as JSON."""

    @abstractmethod
    async def put(self, model: str, document: str) -> None: ...

    @abstractmethod
    async def all(self) -> dict[str, str]: ...


class JobStore(ABC):
    """All methods raise an UNAVAILABLE problem when the store cannot be reached for too long, and those that write an
    OVERLOADED problem when it is full.

    What is written by a run carries the `generation` of its claim, and raises ClaimLost where the job was claimed again
    since. None is for what holds no claim: events of a broker, and those who end a job.
    """

    shared = False
    """Whether other replicas see the same jobs."""

    due: DueList
    """Of the jobs that have a webhook: a new one is due at its deadline, and one that ends at once."""

    documents: ModelDocuments

    def __init__(self) -> None:
        self._receivers: list[Callable[[str], None]] = []

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def now(self) -> float:
        """Seconds since 1970, by the clock of the store: those of the replicas may differ."""
        return time.time()

    # Between replicas

    @abstractmethod
    async def secret(self) -> str:
        """What all replicas know and nobody else: drawn once, and kept for as long as the jobs are."""

    def subscribe(self, receive: Callable[[str], None]) -> None:
        """Call `receive` with every message that a replica broadcasts, this one included."""
        self._receivers.append(receive)

    async def broadcast(self, message: str) -> None:
        """Send a message to all replicas. One that does not listen just now never gets it."""
        self._deliver(message)

    def _deliver(self, message: str) -> None:
        for receive in self._receivers:
            receive(message)

    # Jobs

    @abstractmethod
    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        """Store and queue a new job, and return it; or return the job that has this id already, unless the new one
        replaces it (see JobRecord). In one step, so that of several new ones one is stored.

        OVERLOADED when the requests of jobs that have not ended would take more than their share of the store.
        """

    @abstractmethod
    async def get(self, job: str) -> JobRecord | None: ...

    @abstractmethod
    async def jobs_of(self, caller: str, limit: int, before: str | None = None) -> list[JobRecord]:
        """The newest jobs of a caller, or the newest of those before this cursor, without request, headers and outcome.
        Those of DEFAULT_CALLER and hidden ones are not listed."""

    @abstractmethod
    async def delete(self, record: JobRecord) -> None:
        """Forget a job that has ended, now."""

    @abstractmethod
    async def place(self, record: JobRecord) -> QueuePlace | None:
        """Where a queued job is, or was up to PLACE_SECONDS ago; None when it is not in the queue."""

    @abstractmethod
    async def open_jobs(self) -> int:
        """How many jobs have not ended."""

    @abstractmethod
    async def usage(self) -> StoreUsage:
        """How many jobs are open, of each model and state, and what all take."""

    @abstractmethod
    async def overdue(self, now: float) -> list[str]:
        """Jobs that have not ended although their deadline has passed."""

    # The log

    @abstractmethod
    async def append(self, job: str, entries: Sequence[tuple[str, str]], generation: int | None = None) -> None:
        """Append events, as pairs of a name and JSON, to the log of a job that has not ended."""

    @abstractmethod
    async def append_progress(
        self, job: str, reached: int, entry: Callable[[int], tuple[str, str]], generation: int | None = None
    ) -> None:
        """Append `entry(before)` if `reached` is larger than `before`, the largest one so far, and the job has not
        ended. Comparing and appending are one atomic step."""

    @abstractmethod
    def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        """The entries after this one, and then those that are appended, until the job has ended."""

    # From state to state

    @abstractmethod
    async def start(self, job: str, now: float, generation: int | None = None) -> bool:
        """The job is running, which is one more attempt; False when it was running before, has ended or is unknown."""

    @abstractmethod
    async def reset(self, job: str, generation: int | None = None, attempts: int = 0) -> None:
        """The job is queued again and its progress counts from 0; so many `attempts` are added to those it has had."""

    @abstractmethod
    async def finish(
        self,
        job: str,
        end: JobState,
        outcome: str,
        now: float,
        generation: int | None = None,
        artifact: str | None = None,
    ) -> bool:
        """The job has ended so; False when it had ended before or is unknown. Only the first end counts, in the metrics
        too: whoever writes it may be cancelled because it has ended.

        Where a completed one has its result in an `artifact`, `outcome` is the problem that replicas see which know
        no artifacts.
        """

    @abstractmethod
    async def wait_for_end(self, job: str) -> None:
        """Wait until the job has ended; not at all when it is unknown."""

    @abstractmethod
    async def note_webhook(self, record: JobRecord, webhook: Webhook) -> None:
        """What has become of a job's webhook. Nothing where the job is forgotten, or another one has its id."""

    # The queue

    @abstractmethod
    async def claim(self, model: str, but_not: Collection[str] = ()) -> Claim | None:
        """Wait for the next job of a model, for CLAIM_SECONDS or so: the callers' jobs in turn, by their cost. Jobs
        whose lease has run out come first. With `but_not`, the next job that waits of any other caller."""

    @abstractmethod
    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Begin these leases anew, and return those claims whose job was claimed again since."""

    @abstractmethod
    async def acknowledge(self, claim: Claim) -> None:
        """Take the job off the queue: nothing is left to do for it here."""

    @abstractmethod
    async def release(self, claim: Claim) -> None:
        """Let any replica claim the job at once. One that was claimed again since is left alone."""


def requests_full(most_bytes: float) -> ProblemError:
    """OVERLOADED: the requests of the jobs that have not ended take so many bytes already."""
    return ProblemError(
        problems.OVERLOADED,
        f"The requests of queued and running generations take all of the {most_bytes / 2**20:.3g} MiB for them; no "
        "more are taken.",
        retry_after=FULL_SECONDS,
    )


class StoreFullError(ProblemError):
    """OVERLOADED: the server that keeps the jobs takes no more."""

    def __init__(self) -> None:
        detail = "The store of the generations has no memory left; it takes more once some of them are forgotten."
        super().__init__(problems.OVERLOADED, detail, retry_after=FULL_SECONDS)
