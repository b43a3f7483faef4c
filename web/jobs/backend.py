"""What carries a job to a predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from contract import ProblemError, problems

if TYPE_CHECKING:
    from web.jobs.journal import JobJournal
    from web.jobs.record import JobRecord

RETRY_SECONDS = 5
"""Retry-After where nobody has said yet where requests go."""


class Backend(Protocol):
    """One way to a predictor: REST or events."""

    async def run(self, record: JobRecord, journal: JobJournal) -> None:
        """Have the job generated; what becomes of it is written to the journal, here or later.

        A transient ProblemError makes another attempt follow; any other one ends the job.
        """

    async def cancel(self, record: JobRecord) -> None:
        """The job was ended before its time. A `run` that is busy with it is cancelled besides."""


def sink_missing() -> ProblemError:
    """UNAVAILABLE: whatever is to give K_SINK has not done so when this process began, as in the first seconds of a
    deployment. Another process will have it."""
    detail = "Requests go as events, and K_SINK, their address, is not set."
    return ProblemError(problems.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
