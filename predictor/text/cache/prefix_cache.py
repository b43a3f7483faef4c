"""Rows of a SlotCache that outlive their texts: the next turn of a conversation begins with what they hold.

They lie in rows that no text of the batch needs at the moment, so they take no memory of their own, and make way for
any text. Only texts of the same scope read what another has left: how long a prompt takes would tell others that
somebody has asked the same. Texts without a scope neither read nor leave anything.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from predictor import metrics
from predictor.text.cache.slot_cache import SlotCache

LEAST_TOKENS = 16
"""Fewer are computed again: every conversation of a model begins with the same few."""


@dataclass(slots=True)
class KeptRow:
    """`tokens` whose keys and values a row of the cache holds; `used` is larger the later that was."""

    scope: Hashable
    tokens: list[int]
    used: int


class PrefixCache:
    """What is kept in the rows of `cache`, all of which come after those of the running texts."""

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._kept: dict[int, KeptRow] = {}
        self._uses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, row: int, scope: Hashable | None, tokens: list[int]) -> None:
        """The row holds these tokens, and no text needs it any more."""
        if scope is not None and len(tokens) >= LEAST_TOKENS:
            self._kept[row] = KeptRow(scope, tokens, self._next_use())

    def holds(self, scope: Hashable | None, tokens: list[int]) -> bool:
        """Whether `reuse` would find some of them."""
        return self._longest(scope, tokens)[1] > 0

    def reuse(self, scope: Hashable | None, tokens: list[int], row: int) -> int:
        """How many of the first tokens the row holds now; whatever else was kept in it lies elsewhere. The last token
        is never among them: its logits are needed. With 0 nothing has changed."""
        source, length = self._longest(scope, tokens)
        if not length:
            return 0
        kept = self._kept[source]
        kept.used = self._next_use()
        metrics.REUSED_TOKENS.inc(length)
        if 2 * length < len(kept.tokens):  # another text with the same beginning: both may be gone on with
            self.make_room(row, 1)
            if source != row:
                self._cache.move(source, row, length)
            return length
        del self._kept[source]
        other = self._kept.pop(row, None)
        if other is not None:
            self._cache.swap(source, row, max(length, len(other.tokens)))
            self._kept[source] = other
        elif source != row:
            self._cache.move(source, row, length)
        return length

    def make_room(self, first: int, rows: int) -> None:
        """So many rows from `first` on will be written to: what is kept there moves to rows after them, or what was
        used least recently is forgotten."""
        end = first + rows
        for row in range(first, end):
            while row in self._kept:
                free = next((other for other in range(end, self._cache.slots) if other not in self._kept), None)
                if free is None:
                    del self._kept[min(self._kept, key=lambda kept: self._kept[kept].used)]
                    continue
                self._cache.move(row, free, len(self._kept[row].tokens))
                self._kept[free] = self._kept.pop(row)

    def _longest(self, scope: Hashable | None, tokens: list[int]) -> tuple[int, int]:
        """The row that begins with the most of the tokens but the last, and how many those are; 0 where too few."""
        wanted = tokens[:-1]
        shared = [(_shared(kept.tokens, wanted), row) for row, kept in self._kept.items() if kept.scope == scope]
        length, row = max(shared, default=(0, 0))
        return (row, length) if length >= LEAST_TOKENS else (0, 0)

    def _next_use(self) -> int:
        self._uses += 1
        return self._uses


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
