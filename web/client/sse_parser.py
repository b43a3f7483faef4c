"""A parser of server-sent events, as far as OpenAI-style streams use them: their data."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


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
        # The second half of a CRLF, whose first half has ended the line already.
        new = chunk[1:] if self._after_cr and chunk[:1] == b"\n" else chunk
        self._after_cr = chunk[-1:] == b"\r" if chunk else self._after_cr
        start = len(self._partial)
        self._partial += new
        found = []
        # A picture is one line of megabytes in hundreds of chunks: it is searched, and copied, once.
        done = 0
        for end in _LINE_END.finditer(new):
            data = self._take(done, start + end.start())
            done = start + end.end()
            if data is not None:
                found.append(data)
        del self._partial[:done]
        if len(self._partial) + self._size > self._event_bytes:
            raise EventTooLongError
        return found

    def _take(self, start: int, end: int) -> bytes | None:
        """Take one line; the event's data where it is empty, and so the event's end."""
        if start == end:
            data = b"\n".join(self._data)
            self._data, self._size = [], 0
            return data or None
        named = self._partial.startswith(b"data:", start, end)
        if named or (end - start == len(b"data") and self._partial.startswith(b"data", start)):
            value = min(start + len(b"data:"), end)
            value += self._partial.startswith(b" ", value, end)
            with memoryview(self._partial) as line:
                self._data.append(bytes(line[value:end]))
            self._size += end - start
        return None
