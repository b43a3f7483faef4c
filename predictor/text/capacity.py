"""How many slots fit: a number derived from memory, not guessed.

A slot costs the keys and values of a whole text of the longest allowed length, and what one row adds to a step's
working memory. The weights and the working memory of one prefill are paid once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from predictor.errors import ModelError
from predictor.text.batch import PREFILL_TOKENS
from predictor.text.checkpoint import Checkpoint

PROCESS_BYTES = 768 * 2**20
"""What Python, torch, transformers and kserve take on a CPU before any model (measured: 620 MiB of resident memory)."""

MARGIN = 0.1
"""Part of the memory that is left alone: allocators fragment, and other processes grow."""

ROW_LOGITS = 10
"""Copies of one row's logits in float32 that a step holds at once: the model's, and in the sampler the picked, scaled,
sorted and masked ones, ids, probabilities and sums."""


@dataclass(frozen=True)
class Cost:
    """Bytes. `slot` is one slot's share, `once` what any number of slots shares besides the weights."""

    weights: int
    once: int
    slot: int

    def slots_in(self, memory: int) -> int:
        """How many slots fit into `memory` bytes together with the weights."""
        return max(0, (int(memory * (1 - MARGIN)) - self.weights - self.once) // self.slot)

    def memory_for(self, slots: int) -> int:
        """Bytes that `slots` slots need, margin included."""
        return int((self.weights + self.once + slots * self.slot) / (1 - MARGIN))


def measure_cost(model: Any, length: int, prefill_tokens: int, process_bytes: int) -> Cost:
    """The cost of serving `model` with texts of up to `length` tokens.

    Keys and values are counted from a real forward, which knows every architecture better than its config does.
    `process_bytes` is what the process needs without the model: nothing on a GPU.
    """
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)  # more would take memory that is not planned yet
    with torch.inference_mode():
        cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    # Layers of other kinds keep a state that does not grow, and is small.
    layers = [layer for layer in getattr(cache, "layers", ()) if getattr(layer, "keys", None) is not None]
    states = [states for layer in layers for states in (layer.keys, layer.values)]
    per_token = sum(s.shape[1] * s.shape[3] * s.element_size() for s in states)
    config = model.config.get_text_config()
    inner = max(getattr(config, "intermediate_size", 0) or 0, 4 * config.hidden_size)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # Of a prefill: hidden states, queries, keys, values and the wide layer, each a few times over.
    once = prefill_tokens * (8 * config.hidden_size + 3 * inner) * 4
    row = ROW_LOGITS * config.vocab_size * 4 + (8 * config.hidden_size + 3 * inner) * 4
    return Cost(weights, once + process_bytes, per_token * length + row)


def available_memory(device: torch.device) -> int:
    """Bytes that may be used on `device`: what is free now plus what this process holds already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    limits = [int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)


def memory_share(device: torch.device, memory: int | None) -> int:
    """Bytes that a server may use: what there is, and at most `memory`, which others leave to it.

    On a GPU torch is told, too: who shares one by time-slicing has nothing else that keeps the parts apart.
    """
    available = available_memory(device)
    if memory is None:
        return available
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory / total), device)
    return min(memory, available)


@dataclass(frozen=True)
class Plan:
    """What fits: so many slots `of` what each holds."""

    slots: int
    of: str
    memory: int
    cost: Cost

    def __str__(self) -> str:
        return (
            f"{self.slots} slots of {self.of}: {_size(self.cost.weights)} of weights, "
            f"{_size(self.cost.once)} once, {_size(self.cost.slot)} a slot, {_size(self.memory)} of memory"
        )


def plan(cost: Cost, of: str, max_concurrency: int, memory: int, advice: str = "give it more") -> Plan:
    """At most `max_concurrency` slots in `memory` bytes; a ModelError with `advice` when not even one fits."""
    slots = min(max_concurrency, cost.slots_in(memory))
    if slots < 1:
        raise ModelError(
            f"{_size(memory)} of memory do not hold the model and one slot of {of}, "
            f"which take {_size(cost.memory_for(1))}; {advice}"
        )
    return Plan(slots, of, memory, cost)


def plan_slots(checkpoint: Checkpoint, max_length: int, max_concurrency: int, memory: int | None) -> Plan:
    """How many texts of up to `max_length` tokens, or what its context holds, to serve `checkpoint` with."""
    length = min(checkpoint.context, max_length)
    on_cpu = checkpoint.device.type == "cpu"
    cost = measure_cost(checkpoint.model, length, PREFILL_TOKENS, PROCESS_BYTES if on_cpu else 0)
    memory = available_memory(checkpoint.device) if memory is None else memory
    return plan(cost, f"{length} tokens", max_concurrency, memory, "give it more, or a smaller --max-length")


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
