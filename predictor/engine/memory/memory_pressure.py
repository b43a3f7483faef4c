"""How many rows may run at once after a device has run out of memory, and which errors say that it has."""

from __future__ import annotations

import gc
import logging
import time

import torch

from predictor.engine.memory.slot_plan import MARGIN
from predictor.errors import first_line

log = logging.getLogger(__name__)

RECOVERY_STEPS = 64
"""Good steps after which one more row is tried again."""

MOST_PATIENCE = 64
"""RECOVERY_STEPS are doubled with each try that fails, up to so many times as many."""

STRAIN_EVENTS = 3
STRAIN_SECONDS = 10.0
"""Running out of memory STRAIN_EVENTS times within STRAIN_SECONDS lowers the slots until more rows are tried again, and
readiness for as many seconds."""

_ALLOCATOR_WORDS = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""How torch's CPU allocator and CUDA's libraries say it, in a plain RuntimeError."""

_DEVICE_WORDS = ("CUDA error", "cuDNN error", "HIP error")

POLL_SECONDS = 0.25
WAIT_SECONDS = 30.0
SETTLE_SECONDS = 3.0
"""How long a start waits for memory that other processes hold: a predecessor needs a moment to end. What they have held
unchanged for SETTLE_SECONDS is theirs."""


class MemoryPressure:
    """`usable_slots` of `slots` may be filled at present; `planned` are those that memory was found to hold."""

    def __init__(self, planned: int) -> None:
        self.usable_slots = planned
        self._planned = planned
        self._lowered_to = planned
        self._good_steps = 0
        self._patience = 1
        self._grown = False  # since it last ran out
        self._events: list[float] = []
        self._strained_until = 0.0

    @property
    def slots(self) -> int:
        """What new tasks may count on."""
        return max(self._lowered_to, self.usable_slots)

    @property
    def strained(self) -> bool:
        """Whether memory ran out again and again within the last seconds."""
        return time.monotonic() < self._strained_until

    def reset(self) -> None:
        """Fill all slots again: one row alone was the cause."""
        self.usable_slots = self._lowered_to = self._planned

    def restrict(self, rows: int) -> None:
        """Run at most so many rows for a while."""
        self._good_steps = 0
        self.usable_slots = rows

    def note_good_step(self) -> None:
        """After enough of them, try one more row."""
        self._good_steps += 1
        if self._good_steps < RECOVERY_STEPS * self._patience:
            return
        self._good_steps = 0
        if self.usable_slots < self._planned:
            self.usable_slots += 1
            self._grown = True
        else:
            self._patience, self._grown = 1, False

    def note_out_of_memory(self, rows: int) -> bool:
        """So many rows did not fit: run one less. Whether that lowers the slots because memory runs out too often."""
        self.restrict(rows - 1)
        if self._grown:  # a try that failed is no sign that memory gets less
            self._grown = False
            self._patience = min(2 * self._patience, MOST_PATIENCE)
            return False
        now = time.monotonic()
        self._events = [at for at in self._events if now - at < STRAIN_SECONDS] + [now]
        if len(self._events) < STRAIN_EVENTS:
            return False
        self._lowered_to = self.usable_slots
        self._strained_until = now + STRAIN_SECONDS
        return True


def free_cached_memory() -> None:
    """Give back what nobody uses any more: the device's memory, and what is pinned of the host's."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.accelerator.empty_host_cache()


def wait_for_memory(wanted: int | None = None, device: torch.device | None = None) -> None:
    """Wait until this process may have `wanted` bytes of a GPU, or all of it but the margin, or nobody gives back more.

    Does nothing where the process uses no GPU.
    """
    if not torch.cuda.is_initialized():
        return
    begun = changed = time.monotonic()
    most = 0
    while (now := time.monotonic()) - begun < WAIT_SECONDS:
        free, total = torch.cuda.mem_get_info(device)
        available = free + torch.cuda.memory_reserved(device)
        if available >= (int(total * (1 - MARGIN)) if wanted is None else wanted):
            return
        if available > most:
            most, changed = available, now
        elif now - changed >= SETTLE_SECONDS:
            break
        time.sleep(POLL_SECONDS)
    log.warning("other processes hold memory of this GPU, and only %.1f GiB are left", most / 2**30)


def device_failure(error: BaseException | None) -> str | None:
    """What a device said, as one line, if it is the cause of an error."""
    while error is not None:
        if isinstance(error, Exception) and (is_out_of_memory(error) or is_device_error(error)):
            return first_line(error)
        error = error.__cause__
    return None


def is_device_error(error: Exception) -> bool:
    """Whether the device is to blame, in this call or in any before it, but not for want of memory."""
    if is_out_of_memory(error):
        return False
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _DEVICE_WORDS)
    return said or isinstance(error, torch.AcceleratorError)


def is_said_by_device(words: str) -> bool:
    """Whether an error's words are those of a device that is to blame: it fails at any further touch, too."""
    return any(of_device in words for of_device in _DEVICE_WORDS)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the host, ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_WORDS)
