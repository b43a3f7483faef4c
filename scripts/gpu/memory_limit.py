"""Makes a device run out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from predictor import metrics
from predictor.engine.memory.memory_pressure import free_cached_memory


def peak_bytes(device: str, work: Callable[[], object]) -> int:
    """Most bytes that `work` takes at once on a GPU, beyond what was there before it; 0 on a CPU."""
    import torch

    if device == "cpu":
        work()
        return 0
    free_cached_memory()
    before = int(torch.cuda.memory_allocated(device))
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return int(torch.cuda.max_memory_allocated(device)) - before


def out_of_memory_count() -> int:
    """How often an engine of this process has run out of memory."""
    [metric] = metrics.OUT_OF_MEMORY.collect()
    return int(next(sample.value for sample in metric.samples if sample.name.endswith("_total")))


@contextmanager
def limited_memory(device: str, more: int) -> Iterator[None]:
    """On a GPU this process may take at most `more` bytes beyond what it holds. torch's allocator raises its own error,
    as it does when the device has no more."""
    import torch

    free_cached_memory()
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + more) / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def pretended_limit(module: Any, name: str, too_much: Callable[..., bool]) -> Iterator[None]:
    """A method raises torch's error for arguments that are `too_much`. For a CPU: its memory is not ours to exhaust."""
    import torch

    method = getattr(module, name)

    def limited(*args: Any, **kwargs: Any) -> Any:
        if too_much(*args, **kwargs):
            raise torch.OutOfMemoryError("out of memory, for a check")
        return method(*args, **kwargs)

    setattr(module, name, limited)
    try:
        yield
    finally:
        setattr(module, name, method)
