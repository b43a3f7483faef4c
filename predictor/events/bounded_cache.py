"""A cache in memory that is bounded in number, size and age."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps at most `number` values of at most `size` bytes together, each for `seconds`. Drops the oldest first."""

    def __init__(self, number: int, size: int, seconds: float) -> None:
        self._number = number
        self._size = size
        self._seconds = seconds
        self._entries: dict[Key, tuple[Value, int, float]] = {}  # with size and expiry; the oldest comes first
        self._used = 0

    def get(self, key: Key) -> Value | None:
        """The value, or None when there is none or it has expired."""
        self._evict()
        value, *_ = self._entries.get(key, (None,))
        return value

    def put(self, key: Key, value: Value, size: int) -> None:
        """Add a value of `size` bytes, or replace the one under this key. A value above the bound is not kept."""
        self._remove(key)
        self._entries[key] = value, size, time.monotonic() + self._seconds
        self._used += size
        self._evict()

    def _evict(self) -> None:
        now = time.monotonic()
        while self._entries:
            oldest, (_, _, expires_at) = next(iter(self._entries.items()))
            if len(self._entries) <= self._number and self._used <= self._size and now < expires_at:
                return
            self._remove(oldest)

    def _remove(self, key: Key) -> None:
        _, size, _ = self._entries.pop(key, (None, 0, 0.0))
        self._used -= size
