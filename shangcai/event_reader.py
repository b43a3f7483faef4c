"""The events of one generation, read from as many connections as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2

from contract import ProblemError
from shangcai.attempts import Attempts
from shangcai.results import Event, PictureResult, TextResult, read_event

EVENT_BYTES = 256 * 2**20
"""Largest event: a result with its pictures in base64."""

_END = b"\n\n"


def broken() -> httpx2.TransportError:
    """What a stream has failed with that just ended."""
    return httpx2.RemoteProtocolError("the stream has ended without a result")


class EventReader:
    """`request` makes the request of a connection from the id of the last event that was read, or None. Once `ended` is
    true, `failure` is what the generation has failed with."""

    def __init__(
        self, request: Callable[[str | None], httpx2.Request], attempts: Attempts, after: str | None = None
    ) -> None:
        self.attempts = attempts
        self.last_event_id = after
        self.ended = False
        self.failure: ProblemError | None = None
        self._request = request
        self._partial = bytearray()

    def connection(self) -> httpx2.Request:
        """The next request. What the last connection has left unfinished is forgotten."""
        self._partial.clear()
        return self._request(self.last_event_id)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes. Raises a TimeoutError where the time is over."""
        self.attempts.note_answer()
        searched = max(0, len(self._partial) - 1)
        self._partial += chunk
        while not self.ended and (end := self._partial.find(_END, searched)) >= 0:
            block = bytes(self._partial[:end])
            del self._partial[: end + len(_END)]
            searched = 0
            event = self._event(block)
            if event is not None:
                yield event
        if len(self._partial) > EVENT_BYTES:
            raise httpx2.DecodingError("an event of the stream is too large")

    def _event(self, block: bytes) -> Event | None:
        fields = dict(_field(line) for line in block.split(b"\n"))
        if b"data" not in fields:  # a comment
            return None
        event = read_event(fields.get(b"event", b"").decode(errors="replace"), fields[b"data"])
        if b"id" in fields:
            self.last_event_id = fields[b"id"].decode(errors="replace")
        if isinstance(event, ProblemError):
            self.ended, self.failure = True, event
            return None
        self.ended = isinstance(event, TextResult | PictureResult)
        return event


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")
