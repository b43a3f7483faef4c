"""The poet's optimisers.

Muon here computes in the weights' precision. torch.optim.Muon orthogonalises in bfloat16, which a CPU without bfloat16
units does several times slower than float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# The coefficients, steps and scale of torch.optim.Muon with adjust_lr_fn="match_rms_adamw".
_A, _B, _C = 3.4445, -4.775, 2.0315
_NEWTON_SCHULZ_STEPS = 5
_SCALE = 0.2


class Muon(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not typed
    """Nesterov momentum whose update is orthogonalised; matrices of one shape together."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self) -> None:
        """Move every matrix that has a gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
                for matrix in group["params"]:
                    if matrix.grad is not None:
                        by_shape[matrix.shape].append(matrix)
                for matrices in by_shape.values():
                    self._move(matrices, group)

    def _move(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        updates = orthogonalise(torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices]))
        rate = group["lr"] * _SCALE * math.sqrt(max(matrices[0].shape))
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        average = state["momentum"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(average, momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1, by Newton-Schulz iteration; (count, rows, columns)."""
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if wide is not matrices else x


def build_optimizers(model: torch.nn.Module, peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms; one learning rate fits both."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=peak),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]
