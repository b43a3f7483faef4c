"""A job as it is stored: its record, the entries of its log, and the claim of the replica that works on it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from contract import ENDS, Job, JobState, Kind, Problem, Webhook
from contract.cloudevents import written
from contract.stored import ENVELOPE
from web.callers.caller import DEFAULT_CALLER

BEGINNING = "0-0"
"""The entry id before all others."""

LAST_EVENTS = frozenset({"result", "error"})
"""Names of the events that end a log."""


RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of problems that may have passed."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Times are in seconds since 1970; `request` and `outcome` are JSON."""

    id: str
    model: str
    kind: Kind
    request: str = field(repr=False)
    digest: str
    """Of the body that was sent: the same Idempotency-Key must come with the same body."""
    created: float
    deadline: float
    own_limit: bool = False
    """Whether its client has set the deadline: that it is missed is nobody's failure then."""
    headers: dict[str, str] = field(default_factory=dict)
    """Those that are passed on to the predictor: the request id and the trace."""
    started: float | None = None
    ended: float | None = None
    end: JobState | None = None
    outcome: str | None = field(default=None, repr=False)
    """The result, or the problem document; None where there is an artifact."""
    artifact: str | None = field(default=None, repr=False)
    """Where the result is that is too large for the store: see web.jobs.results."""
    attempts: int = 0
    caller: str = DEFAULT_CALLER
    """Whose it is; nobody else sees it."""
    cost: float = 1.0
    """What it takes of a share: see web.jobs.cost."""
    generation: int = 0
    """How often it was claimed. What an earlier claim still writes is refused."""
    keep_seconds: float | None = None
    """How long it is kept after its end, where that is not as long as other jobs are."""
    response: str | None = field(default=None, repr=False)
    """JSON of what a response was asked with (web.responses), which is kept as long as the job is."""
    hidden: bool = False
    """Neither listed nor found by its caller: it is left to who made it."""
    webhook: Webhook | None = None
    """Where its end is delivered to, and what has become of that."""

    @property
    def request_bytes(self) -> int:
        """Bytes of what it was asked with."""
        return len(self.request.encode()) + len((self.response or "").encode())

    @property
    def state(self) -> JobState:
        if self.end is not None:
            return self.end
        return "queued" if self.started is None else "running"

    @property
    def is_listed(self) -> bool:
        return self.caller != DEFAULT_CALLER and not self.hidden

    @property
    def summary(self) -> Job:
        """What clients see of it, without its request and outcome."""
        return Job(
            id=self.id,
            state=self.state,
            model=self.model,
            kind=self.kind,
            created_at=written(self.created),
            started_at=None if self.started is None else written(self.started),
            ended_at=None if self.ended is None else written(self.ended),
            deadline_at=written(self.deadline),
        )

    @property
    def cursor(self) -> str:
        """Its place among its caller's jobs. Texts sort as the jobs were made."""
        return f"{round(1e6 * self.created):017d}-{self.id}"

    @property
    def problem(self) -> Problem | None:
        """Why it failed or was cancelled."""
        if self.end is None or self.end == "completed":
            return None
        return Problem.of_any_version(self.outcome or "")

    @property
    def tried_before(self) -> bool:
        """Whether this attempt is not the first, here or elsewhere."""
        return self.started is not None or self.attempts > 0 or self.generation > 1

    def replaces(self, older: JobRecord) -> bool:
        """Whether this new job takes the place of an older one with the same id: the same request, which may be
        retried."""
        return older.may_be_retried and older.digest == self.digest

    @property
    def may_be_retried(self) -> bool:
        """Whether it has failed for a reason that may have passed."""
        problem = self.problem if self.end == "failed" else None
        return problem is not None and problem.status in RETRIED


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An event of a job: its name and its JSON, under an id that grows. The last entry holds the outcome."""

    id: str
    event: str
    data: str

    @property
    def last(self) -> bool:
        return self.event in LAST_EVENTS


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is leased to this replica. Another replica may take it over once the lease has run out."""

    model: str
    job: str
    entry: str = ""
    """Its id in the queue, where the store has one."""
    generation: int = 0
    """How often the job was claimed, this time included. What is written by an earlier claim is refused."""
    caller: str = field(default=DEFAULT_CALLER, compare=False)
    """Whose job it is."""
    taken_over: bool = field(default=False, compare=False)
    """Whether another replica, or an earlier process, has had it before."""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a job is in the queue of its model, at this moment: more may come that is due before it."""

    position: int
    """How many jobs are before it, claimed ones included."""
    claimed: int
    """How many jobs of the model are claimed, by any replica."""
    is_claimed: bool = False
    """Whether it is one of these."""


def ended_request(request: str) -> str:
    """What is left of a job's request once it has ended: what its answers are made by, and a prompt of one character,
    without which no version reads it."""
    whole = json.loads(request)
    whole = whole.get(ENVELOPE, whole)
    return json.dumps({"prompt": "-", **{name: whole[name] for name in ("n", "format") if name in whole}})


def last_event(end: JobState) -> str:
    """The name of the log's last event."""
    assert end in ENDS
    return "result" if end == "completed" else "error"
