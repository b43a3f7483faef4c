"""The Last-Event-ID header, with which a client continues a stream of a job's events."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from contract import invalid_field

_ENTRY_ID = re.compile("[0-9]{1,18}-[0-9]{1,18}")  # as in a stream of Redis: milliseconds and a number


def last_event_id(headers: Headers) -> str | None:
    """The id of the last entry that the client has seen; INVALID_FIELD when it cannot be one."""
    given = headers.get("last-event-id")
    if given is not None and not _ENTRY_ID.fullmatch(given):
        raise invalid_field("Last-Event-ID", "must be the id of an event of this stream")
    return given
