"""How many rows may run at once after a device has run out of memory."""

from __future__ import annotations

import time

import torch

RECOVERY_STEPS = 64
"""Good steps after which one more row is tried again."""

STRAIN_EVENTS = 3
STRAIN_SECONDS = 10.0
"""Running out of memory STRAIN_EVENTS times within STRAIN_SECONDS lowers the slots for good, and readiness for as
long."""

_ALLOCATOR_WORDS = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""How torch's CPU allocator and CUDA's libraries say it, in a plain RuntimeError."""


class MemoryPressure:
    """`usable_slots` of `slots` may be filled at present."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.usable_slots = slots
        self._good_steps = 0
        self._events: list[float] = []
        self._strained_until = 0.0

    @property
    def strained(self) -> bool:
        """Whether memory ran out again and again within the last seconds."""
        return time.monotonic() < self._strained_until

    def reset(self, slots: int) -> None:
        """Fill up to `slots` again: one row alone was the cause."""
        self.slots = self.usable_slots = slots

    def restrict(self, rows: int) -> None:
        """Run at most so many rows for a while."""
        self._good_steps = 0
        self.usable_slots = rows

    def note_good_step(self) -> None:
        """After enough of them, try one more row."""
        self._good_steps += 1
        if self._good_steps >= RECOVERY_STEPS and self.usable_slots < self.slots:
            self._good_steps = 0
            self.usable_slots += 1

    def note_out_of_memory(self) -> None:
        now = time.monotonic()
        self._good_steps = 0
        self._events = [at for at in self._events if now - at < STRAIN_SECONDS] + [now]

    def lower_slots(self) -> bool:
        """Make the restriction last if memory has run out too often; whether it does."""
        if len(self._events) < STRAIN_EVENTS:
            return False
        self.slots = self.usable_slots
        self._strained_until = self._events[-1] + STRAIN_SECONDS
        return True


def is_out_of_memory(error: Exception) -> bool:
    """Whether a failed step ran out of memory, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_WORDS)
