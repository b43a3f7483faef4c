"""Which tokens each published piece of a text is made of."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class AlignedTokens(Generic[Item]):
    """Tokens wait here until their text is published: a token is told with the piece that has its first character.

    What comes before the answer, and what is never published, is not told. Tokens that make a character together are
    told together.
    """

    def __init__(self) -> None:
        self._undecoded: list[Item] = []
        self._waiting: deque[tuple[int, int, Item]] = deque()  # by the characters where they begin and end
        self._decoded = 0  # characters so far
        self._published: int | None = None  # of them, with those before the answer; None before it begins

    def add(self, token: Item) -> None:
        """The next token."""
        self._undecoded.append(token)

    def decode(self, characters: int) -> None:
        """The tokens since the last call have become so many characters; none: they are still held back."""
        if characters:
            end = self._decoded + characters
            self._waiting.extend((self._decoded, end, token) for token in self._undecoded)
            self._undecoded.clear()
            self._decoded = end

    def answer(self, characters: int) -> None:
        """The last so many characters are of the answer; none: it may not have begun yet."""
        if characters and self._published is None:
            self._published = self._decoded - characters
            while self._waiting and self._waiting[0][1] <= self._published:
                self._waiting.popleft()

    def publish(self, characters: int) -> list[Item]:
        """So many further characters of the answer are published; the tokens to tell with them."""
        if self._published is None:
            return []
        self._published += characters
        told = []
        while self._waiting and self._waiting[0][0] < self._published:
            told.append(self._waiting.popleft()[2])
        return told

    def rest(self) -> list[Item]:
        """Tokens at the end of the answer that have become no text."""
        rest, self._undecoded = self._undecoded, []
        return rest
