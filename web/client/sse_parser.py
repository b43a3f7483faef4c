"""A parser of server-sent events, as far as OpenAI-style streams use them: their data."""

from __future__ import annotations


class EventTooLongError(Exception):
    """An event is longer than its limit."""


class DataFields:
    """Makes events' data of chunks of bytes, however they are cut. Comments and other fields are dropped."""

    def __init__(self, event_bytes: int) -> None:
        self._event_bytes = event_bytes
        self._partial = bytearray()
        self._after_cr = False
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes."""
        self._partial += chunk
        found = []
        # A picture is one line in hundreds of chunks: earlier chunks are searched again only when a line ends.
        if self._after_cr or b"\n" in chunk or b"\r" in chunk:
            found = [data for line in self._lines() if (data := self._take(line)) is not None]
        if len(self._partial) + self._size > self._event_bytes:
            raise EventTooLongError
        return found

    def _lines(self) -> list[bytes]:
        """Take the complete lines out of what has come."""
        text = bytes(self._partial)
        lines = text.splitlines()
        self._after_cr = text.endswith(b"\r")
        if text.endswith(b"\n") or not lines:
            self._partial = bytearray()
        else:
            # A CR at the end may be the first half of a CRLF, which ends one line and not two.
            self._partial = bytearray(lines.pop() + (b"\r" if self._after_cr else b""))
        return lines

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
