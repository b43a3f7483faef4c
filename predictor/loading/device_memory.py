"""How much memory a device has for a server."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from predictor.cpu.packed_linear import PackedLinear
from predictor.cpu.stored_embedding import StoredEmbedding


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


def model_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights of a model, and of its other tensors; of a table that lies in a file all of them."""
    laid_out = sum(part.nbytes for part in model.modules() if isinstance(part, PackedLinear | StoredEmbedding))
    return laid_out + sum(map(_tensor_bytes, (*model.parameters(), *model.buffers())))


def _tensor_bytes(tensor: torch.Tensor) -> int:
    """A quantized tensor says how many elements of which type it stands for, and consists of smaller ones."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_tensor_bytes(getattr(tensor, name)) for name in names)
    return int(tensor.numel() * tensor.element_size())


def free_host_memory(proc: Path = Path("/proc")) -> int:
    """Bytes of the host's memory that this process may still take: of what its container may use, and of what other
    processes leave."""
    left = available_memory(torch.device("cpu")) - (proc_bytes(proc / "self/status", "VmRSS") or 0)
    free = proc_bytes(proc / "meminfo", "MemAvailable")
    return max(0, left if free is None else min(left, free))


def proc_bytes(path: Path, name: str) -> int | None:
    """Bytes of an entry "NAME: 123 kB" of a file in /proc; None where there is none."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:  # not on Linux
        return None
    return int(found[1]) * 1024 if found else None


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
