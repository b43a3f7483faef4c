"""Where jobs live: their state, their outcome, what was told on the way, and the queue of those to be begun.

One replica keeps them in memory (`web.jobs.memory_store`), several share a Redis or Valkey (`web.jobs.redis_store`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from contract import ENDS, JobState, Kind

BEGINNING = "0-0"
"""The entry id before all others."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is stored. Times are in seconds since 1970; `order` and `outcome` are JSON."""

    id: str
    model: str
    kind: Kind
    order: str = field(repr=False)
    digest: str
    """Of the body that was sent: whoever comes with the same Idempotency-Key must have sent the same."""
    created: float
    deadline: float
    headers: dict[str, str] = field(default_factory=dict)
    """That follow the request: its name and its trace."""
    started: float | None = None
    ended: float | None = None
    end: JobState | None = None
    outcome: str | None = field(default=None, repr=False)
    """The result, or the problem document."""
    attempts: int = 0

    @property
    def state(self) -> JobState:
        if self.end is not None:
            return self.end
        return "queued" if self.started is None else "running"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What was told of a job: an event's name and its JSON, under an id that grows. The last one is the end."""

    id: str
    event: str
    data: str

    @property
    def last(self) -> bool:
        return self.event in LAST_EVENTS


LAST_EVENTS = frozenset({"result", "error"})


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this replica is to bring on its way; others take it over when the lease is not kept up."""

    model: str
    job: str
    entry: str = ""


class JobStore(ABC):
    """All methods raise an UNAVAILABLE problem when the store cannot be reached for longer than it is worth waiting."""

    shared = False
    """Whether other replicas see the same jobs."""

    hear: Callable[[str], None] = staticmethod(lambda _news: None)
    """Is called with what replicas spread, this one too."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def spread(self, news: str) -> None:
        """Have all replicas hear it that hear anything just now."""
        self.hear(news)

    @abstractmethod
    async def add(self, record: JobRecord, *, queued: bool = True) -> JobRecord:
        """Keep a new job and queue it; the one that is there already where the id is taken."""

    @abstractmethod
    async def get(self, job: str) -> JobRecord | None: ...

    @abstractmethod
    async def position(self, record: JobRecord) -> int | None:
        """How many are before it, running ones too; None when it is not in the queue."""

    @abstractmethod
    async def open_jobs(self) -> int: ...

    @abstractmethod
    async def overdue(self, now: float) -> list[str]:
        """Jobs that are open after their deadline."""

    # The log

    @abstractmethod
    async def tell(self, job: str, entries: Sequence[tuple[str, str]]) -> None:
        """Add events' names and JSON to the log, unless it has ended."""

    @abstractmethod
    async def advance(self, job: str, told: int, entry: Callable[[int], tuple[str, str]]) -> None:
        """Add the entry for what goes beyond the last `told`, if this one does, unless it has ended; both at once."""

    @abstractmethod
    def watch(self, job: str, after: str = BEGINNING) -> AsyncIterator[LogEntry]:
        """What was told after an entry, then what is being told, until the end."""

    # The way through the states

    @abstractmethod
    async def start(self, job: str, now: float) -> bool:
        """It is running, once more; False when it was already, or has ended."""

    @abstractmethod
    async def restart(self, job: str) -> None:
        """It waits again, and nothing of it is `told`."""

    @abstractmethod
    async def finish(self, job: str, end: JobState, outcome: str, now: float) -> bool:
        """It ends so, unless it is unknown or has ended before (False): only the first end counts."""

    @abstractmethod
    async def ended(self, job: str) -> None:
        """Wait until it has ended, or is unknown."""

    # The queue

    @abstractmethod
    async def take(self, model: str) -> Claim:
        """Wait for the next job of a model, those first whose replica has died."""

    @abstractmethod
    async def keep(self, claims: Sequence[Claim]) -> None:
        """Still at it."""

    @abstractmethod
    async def done(self, claim: Claim) -> None:
        """Nothing is left to do for this job here."""

    @abstractmethod
    async def release(self, claim: Claim) -> None:
        """Somebody else may take it over at once."""


def last_event(end: JobState) -> str:
    """The name of the event that tells an end."""
    assert end in ENDS
    return "result" if end == "completed" else "error"
