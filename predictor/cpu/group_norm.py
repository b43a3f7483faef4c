"""Group normalization of bfloat16 in float32: torch's own kernel of channels-last bfloat16 takes three to five times as
long, which is more than packed convolutions of a small picture gain."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import group_norm


class Float32GroupNorm(torch.nn.GroupNorm):  # type: ignore[misc]
    """The same layer as another, whose numbers are float32 within."""

    def __init__(self, layer: torch.nn.GroupNorm) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As GroupNorm's, [row, channel, ...]."""
        weight, bias = (None if each is None else each.float() for each in (self.weight, self.bias))
        return group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)


def widen_group_norms(model: torch.nn.Module) -> int:
    """Put such layers in the place of the model's of bfloat16 on a CPU, and return how many there are now."""
    layers = [(path, layer) for path, layer in model.named_modules() if path and _is_slow(layer)]
    for path, layer in layers:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, Float32GroupNorm(layer))
    return len(layers)


def _is_slow(layer: Any) -> bool:
    if type(layer) is not torch.nn.GroupNorm or layer.weight is None:
        return False
    return bool(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.bfloat16)
