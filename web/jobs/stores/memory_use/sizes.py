"""Bytes that jobs take in memory, at most."""

from __future__ import annotations

from web.jobs.record import JobRecord

JOB_BYTES = 2_048
"""What the objects around a job take: its record, its log, its places in the dictionaries and in the queue."""

ENTRY_BYTES = 128
"""What the objects around an entry of a log take."""

TEXT_BYTES = 64
"""What a text takes beside its characters."""

WEBHOOK_BYTES = 8_192
"""What a webhook takes once all attempts to deliver to it have failed."""


def record_size(record: JobRecord) -> int:
    """Of the texts of a record beside its request."""
    headers = [text for header in record.headers.items() for text in header]
    webhook = 0 if record.webhook is None else WEBHOOK_BYTES + text_size(record.webhook.url)
    return webhook + sum(map(text_size, (record.id, record.model, record.digest, record.caller, *headers)))


def request_size(record: JobRecord) -> int:
    return text_size(record.request) + (0 if record.response is None else text_size(record.response))


def text_size(text: str) -> int:
    """Bytes that it takes at most. One character beyond ASCII, and Python gives each up to four; and it keeps the UTF-8
    of what was parsed, with up to four more."""
    return TEXT_BYTES + len(text) * (1 if text.isascii() else 8)
