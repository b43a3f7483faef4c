"""The reading side of server-sent events, as far as OpenAI-style streams use them."""

from __future__ import annotations

EVENT_BYTES = 1_048_576
"""Longest event of an upstream stream; one chunk of a completion has a few hundred bytes."""


class EventTooLongError(Exception):
    """An event has not ended within its limit."""


class DataFields:
    """Turns bytes, however they are cut, into the data of events. Comments and other fields are dropped."""

    def __init__(self, event_bytes: int = EVENT_BYTES) -> None:
        self._event_bytes = event_bytes
        self._partial = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes."""
        text = self._partial + chunk
        lines = text.splitlines()
        if text.endswith(b"\n") or not lines:
            self._partial = b""
        else:
            # A CR at the end may be the first half of a CRLF, which ends one line and not two.
            self._partial = lines.pop() + (b"\r" if text.endswith(b"\r") else b"")
        found = [data for line in lines if (data := self._take(line)) is not None]
        if len(self._partial) + self._size > self._event_bytes:
            raise EventTooLongError
        return found

    def _take(self, line: bytes) -> bytes | None:
        if not line:
            data = b"\n".join(self._data)
            self._data, self._size = [], 0
            return data or None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(line)
        return None
