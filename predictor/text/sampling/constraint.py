"""Which tokens a text may go on with, where something holds it to a structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

_BITS = 32


class Constraint(Protocol):
    """Of one text, from its first token on. It is asked in the engine's thread, while the device computes."""

    def mask(self) -> torch.Tensor:
        """The tokens that may come next, at least one: int32 [vocabulary / 32, rounded up] on the CPU, where bit
        `token % 32` of number `token // 32` allows that token, as llguidance fills it. What is beyond its end is not
        allowed. A step that fails is tried again and asks again."""
        ...

    def accept(self, token: int) -> None:
        """The text goes on with this token. Called once for each."""
        ...


def forbid(logits: torch.Tensor, numbers: torch.Tensor, masks: Sequence[torch.Tensor]) -> None:
    """Make impossible in the rows of these `numbers` of `logits` [rows, vocabulary] what their masks do not allow. Does
    not wait for the device."""
    words = torch.stack(list(masks))
    if logits.device.type == "cuda":
        words = words.pin_memory()  # what is not pinned is copied once the device has nothing to do
    words = words.to(logits.device, non_blocking=True)
    bits = words[:, :, None] >> torch.arange(_BITS, dtype=torch.int32, device=logits.device)
    allowed = (bits & 1).bool().flatten(1)
    own = logits[numbers]
    known = min(allowed.shape[1], own.shape[1])
    own[:, :known].masked_fill_(~allowed[:, :known], -torch.inf)
    own[:, known:] = -torch.inf
    logits.index_copy_(0, numbers, own)
