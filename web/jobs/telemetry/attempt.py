"""An attempt at a job: its span, its count and its line in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from web.metrics import ATTEMPTS
from wire.telemetry.facts import Facts, gathered
from wire.telemetry.lines import log_run
from wire.telemetry.tracing import trace_id, work

if TYPE_CHECKING:
    from web.jobs.journal import JobJournal
    from web.jobs.record import JobRecord

log = logging.getLogger(__name__)


class Attempt:
    """`outcome` is set by whoever knows; unless it is, the run was broken off, and the job is left to others."""

    outcome: Literal["done", "failed", "retried", "left"] = "left"


@contextmanager
def told(record: JobRecord, journal: JobJournal, now: float) -> Iterator[Attempt]:
    """Around an attempt that begins now, of the clock of the record's times. Its seconds count from when the job was
    made, so that those of an earlier attempt are among them."""
    facts = Facts(
        request_id=record.headers.get("X-Request-Id", record.id),
        arrived=time.perf_counter() - (now - record.created),
        job_id=record.id,
        trace_id=trace_id(record.headers),
        caller=record.caller,
        model=record.model,
    )
    attributes = {
        "shangcai.job_id": facts.job_id,
        "shangcai.request_id": facts.request_id,
        "shangcai.caller": facts.caller,
    }
    attempt = Attempt()
    with gathered(facts):
        try:
            with work(f"job {record.model}", record.headers, attributes, linked=record.tried_before):
                yield attempt
        finally:
            ATTEMPTS.labels(record.model, attempt.outcome).inc()
            state = journal.ending or ("sent" if attempt.outcome == "done" else "queued")
            log_run(log, facts, state, record.attempts + 1)
