"""The CloudEvent of a job's end, and its signature after the Standard Webhooks specification."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

from contract import ENDS
from contract.cloudevents import (
    CALLER,
    CANCELLED,
    COMPLETED,
    DATAREF,
    EVENT_BYTES,
    FAILED,
    MODEL,
    TRACE,
    Cancellation,
    CloudEvent,
    written,
)
from wire.cloudevents import write_event

if TYPE_CHECKING:
    from web.jobs.record import JobRecord
    from web.jobs.results import Results

_TYPES = {"completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED}


def webhook_id(record: JobRecord) -> str:
    """The same for all attempts to deliver the end of a job; another one where a new job has taken the place of one
    that has failed."""
    assert record.end in ENDS
    named = f"{record.id} {record.created} {_TYPES[record.end]}"
    return f"msg_{hashlib.sha256(named.encode()).hexdigest()[:32]}"


async def end_event(record: JobRecord, results: Results, source: str, base: str) -> tuple[dict[str, str], bytes]:
    """Headers and body, of no more than EVENT_BYTES: of a larger result the event has a reference, to the job below
    `base`. It is for the receiver, who may not reach the artifacts."""
    assert record.end in ENDS
    assert record.ended is not None
    trace = {name: record.headers[name] for name in TRACE if name in record.headers}
    event = CloudEvent(
        id=webhook_id(record),
        source=source,
        type=_TYPES[record.end],
        subject=record.id,
        time=written(record.ended),
        extensions={**trace, MODEL: record.model, CALLER: record.caller},
    )
    if record.problem is not None:
        data = Cancellation(reason=record.problem.detail) if record.end == "cancelled" else record.problem
        return write_event(event.with_data(data), "structured")
    if record.artifact is None and len(record.outcome or "") <= EVENT_BYTES:
        headers, body = write_event(event.with_data(await results.result(record)), "structured")
        if len(body) <= EVENT_BYTES:
            return headers, body
    reference = {DATAREF: f"{base}/generations/{record.id}"}
    return write_event(event.model_copy(update={"extensions": event.extensions | reference}), "structured")


def signature_headers(key: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Of one attempt; `message` is the id and `timestamp` in seconds since 1970."""
    digest = hmac.digest(key, f"{message}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
