"""Weights that wait in the host's memory while their device is free.

Tensors stay the objects that modules, hooks and compiled code know; only where their numbers lie changes. What shares
memory on the device, such as tied weights and views, shares it on the host and afterwards, because whole storages are
moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Moved:
    """The tensors of one storage of a device, and its bytes on the host."""

    device: torch.device
    host: torch.Tensor
    tensors: list[torch.Tensor]


class HostWeights:
    """The weights and other tensors of models, moved to the host and back. What is on the host already stays there.

    The host's memory is pinned for a GPU, so that it is copied at the speed of the bus. It is taken once, and kept
    while the weights are on the device: for as long as the models are used, it is there twice. torch takes a power of
    two of bytes for each storage.
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._moved: list[_Moved] = []

    def offload(self, models: Iterable[torch.nn.Module]) -> None:
        """Copy to the host, and let go of the device's memory; that others hold parts of it, too, is not known here.
        After an error nothing has changed."""
        if self._moved:
            return
        storages: dict[tuple[str, int], list[torch.Tensor]] = {}
        for tensor in _tensors(models):
            if on_device(tensor) and tensor.untyped_storage().nbytes():
                key = (str(tensor.device), tensor.untyped_storage().data_ptr())
                storages.setdefault(key, []).append(tensor)
        moved = []
        for number, tensors in enumerate(storages.values()):
            device, storage = tensors[0].device, tensors[0].untyped_storage()
            host = self._buffer(number, storage.nbytes(), device)
            host.copy_(torch.empty(0, dtype=torch.uint8, device=device).set_(storage), non_blocking=True)
            moved.append(_Moved(device, host, tensors))
        _wait_for(moved)
        for one in moved:
            _point(one.tensors, one.host)
        self._moved = moved

    def restore(self) -> None:
        """Copy back to where they were. After an error, as for want of memory, they are all on the host still."""
        copies = [torch.empty(one.host.numel(), dtype=torch.uint8, device=one.device) for one in self._moved]
        for one, copy in zip(self._moved, copies, strict=True):
            copy.copy_(one.host, non_blocking=True)
        _wait_for(self._moved)
        for one, copy in zip(self._moved, copies, strict=True):
            _point(one.tensors, copy)
        self._moved = []

    def _buffer(self, number: int, size: int, device: torch.device) -> torch.Tensor:
        """The memory for so many bytes of storage number `number`, the same as the last time where that fits."""
        if number == len(self._buffers):
            self._buffers.append(torch.empty(0, dtype=torch.uint8))
        if self._buffers[number].numel() != size:
            self._buffers[number] = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        return self._buffers[number]


def on_device(tensor: torch.Tensor) -> bool:
    """Whether it lies in a memory that is not the host's."""
    return tensor.device.type not in ("cpu", "meta")


def _tensors(models: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            yield from _parts(tensor)


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that a quantized one consists of; a plain one itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _parts(getattr(tensor, name))


def _point(tensors: Iterable[torch.Tensor], memory: torch.Tensor) -> None:
    """Have tensors that shared a storage lie in `memory` in the same way."""
    storage = memory.untyped_storage()
    for tensor in tensors:
        place = torch.empty(0, dtype=tensor.dtype, device=memory.device)
        tensor.data = place.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())


def _wait_for(moved: Iterable[_Moved]) -> None:
    """Until copies from and to these devices are done."""
    for device in {one.device for one in moved if one.device.type == "cuda"}:
        torch.cuda.synchronize(device)
