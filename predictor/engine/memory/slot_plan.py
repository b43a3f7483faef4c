"""How many slots fit into a memory, computed from what each costs."""

from __future__ import annotations

from dataclasses import dataclass

from predictor.errors import ModelError
from predictor.limits import MAX_CONCURRENCY, MAX_CUDA_CONCURRENCY

PROCESS_BYTES = 768 * 2**20
"""What Python, torch, transformers and kserve take on a CPU before any model (620 MiB of resident memory measured)."""

MARGIN = 0.1
"""Share of the memory that stays free: allocators fragment, and other processes grow."""


@dataclass(frozen=True)
class Cost:
    """Bytes: of the weights, of what all slots share besides (`once`), and of each slot."""

    weights: int
    once: int
    slot: int

    def slots_in(self, memory: int) -> int:
        """How many slots fit into `memory` bytes together with the weights."""
        return max(0, (int(memory * (1 - MARGIN)) - self.weights - self.once) // self.slot)

    def memory_for(self, slots: int) -> int:
        """Bytes that `slots` slots need, margin included."""
        return int((self.weights + self.once + slots * self.slot) / (1 - MARGIN))


@dataclass(frozen=True)
class Plan:
    """So many slots fit into `memory` bytes. `of` says what a slot holds, as in "8192 tokens"."""

    slots: int
    of: str
    memory: int
    cost: Cost

    def __str__(self) -> str:
        return (
            f"{self.slots} slots of {self.of}: {_size(self.cost.weights)} of weights, "
            f"{_size(self.cost.once)} once, {_size(self.cost.slot)} a slot, {_size(self.memory)} of memory"
        )


def most_slots(max_concurrency: int | None, device_type: str) -> int:
    """`max_concurrency`, or what it is for a type of torch devices when nobody has set it."""
    return max_concurrency or (MAX_CUDA_CONCURRENCY if device_type == "cuda" else MAX_CONCURRENCY)


def plan(cost: Cost, of: str, max_concurrency: int, memory: int, advice: str = "give it more") -> Plan:
    """At most `max_concurrency` slots in `memory` bytes. Raises ModelError with `advice` when not even one fits."""
    slots = min(max_concurrency, cost.slots_in(memory))
    if slots < 1:
        raise ModelError(
            f"{_size(memory)} of memory do not hold the model and one slot of {of}, "
            f"which take {_size(cost.memory_for(1))}; {advice}"
        )
    return Plan(slots, of, memory, cost)


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
