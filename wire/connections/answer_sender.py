"""Sending answers to clients that read slowly, or not at all: with little memory, and not for long."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Message, Send

from contract.limits import SEND_BYTES_PER_SECOND, SEND_SECONDS

PIECE_BYTES = 65_536
"""Most of an answer that is written at a time. What is not larger is no large answer."""

STALLED_SECONDS = 5.0
"""A client that has read nothing for so long makes room where large answers are too many."""


class Connection(Protocol):
    """What sending needs of a connection."""

    async def all_read(self) -> None:
        """Waits until the client has read the answer before, and counts what it does not read anew."""

    def give_up(self) -> None: ...


class AnswerBudget:
    """The large answers of a server that are on their way to clients.

    Where they have more than `most_bytes` together, those end whose clients have read nothing for STALLED_SECONDS. A
    client may read nothing for `seconds`, and an answer of n bytes takes `seconds` + n / `bytes_per_second` at most.
    """

    def __init__(
        self,
        most_bytes: float = math.inf,
        seconds: float = SEND_SECONDS,
        bytes_per_second: float = SEND_BYTES_PER_SECOND,
    ) -> None:
        self.seconds = seconds
        self._bytes_per_second = bytes_per_second
        self._most_bytes = most_bytes
        self._held: dict[AnswerSender, tuple[int, float]] = {}  # whose client has read nothing for longest comes first
        self._later: asyncio.TimerHandle | None = None

    def take(self, sender: AnswerSender, size: int) -> float:
        """Count an answer; the time until which it may take, on the clock of the event loop."""
        now = asyncio.get_running_loop().time()
        self._held[sender] = size, now
        self._make_room()
        return now + self.seconds + size / self._bytes_per_second

    def read(self, sender: AnswerSender) -> None:
        """Its client has read a piece."""
        if sender in self._held:
            size, _ = self._held.pop(sender)
            self._held[sender] = size, asyncio.get_running_loop().time()

    def give_back(self, sender: AnswerSender) -> None:
        self._held.pop(sender, None)

    def _make_room(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        loop = asyncio.get_running_loop()
        while len(self._held) > 1 and sum(size for size, _ in self._held.values()) > self._most_bytes:
            slowest, (_, read) = next(iter(self._held.items()))
            if loop.time() - read < STALLED_SECONDS:
                self._later = loop.call_at(read + STALLED_SECONDS, self._make_room)
                return
            self.give_back(slowest)
            slowest.connection.give_up()


class AnswerSender:
    """Passes the messages of one answer on to `send`, which takes the next when the client has read most of those
    before. Large ones in pieces, which nothing comes between."""

    def __init__(self, connection: Connection, send: Send, budget: AnswerBudget) -> None:
        self.connection = connection
        self._send = send
        self._budget = budget
        self._sending = asyncio.Lock()  # heartbeats of an event stream come from a task of their own
        self._until: float | None = None
        """Of a large answer, or of a large part of a stream, when it must be sent."""

    async def __call__(self, message: Message) -> None:
        async with self._sending:
            if message["type"] == "http.response.start":
                await self.connection.all_read()
                self._expect(int(Headers(raw=message["headers"]).get("content-length", 0)))
                await self._send(message)
                return
            body = memoryview(message.get("body", b""))
            of_stream = self._until is None
            if of_stream:
                self._expect(len(body))
            if self._until is None:
                await self._send(message)
            else:
                await self._send_in_pieces(message, body, self._until)
            if of_stream:
                self.close()

    def close(self) -> None:
        """The answer is sent, or will not be."""
        self._budget.give_back(self)
        self._until = None

    def _expect(self, size: int) -> None:
        if size > PIECE_BYTES:
            self._until = self._budget.take(self, size)

    async def _send_in_pieces(self, message: Message, body: memoryview, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                for end in range(PIECE_BYTES, max(len(body), 1) + PIECE_BYTES, PIECE_BYTES):
                    more = end < len(body) or message.get("more_body", False)
                    await self._send({**message, "body": body[end - PIECE_BYTES : end], "more_body": more})
                    self._budget.read(self)
                    await asyncio.sleep(0)  # the turn of others
        except TimeoutError:
            self.connection.give_up()
