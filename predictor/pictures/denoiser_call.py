"""Calls of a denoiser, which become one forward where they fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


class DenoiserCall:
    """The arguments of one call. It computes `rows` rows: one picture, or two for its guidance."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self._leaves, self._spec = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, torch.Tensor)]
        # The tensor of most dimensions is the latents, whatever the argument is called.
        self.rows = max(tensors, key=lambda tensor: tensor.dim()).shape[0]
        self._per_row = {
            number
            for number, leaf in enumerate(self._leaves)
            if isinstance(leaf, torch.Tensor) and (leaf.dim() == 0 or leaf.shape[0] == self.rows)
        }
        # Of every argument what has to be the same in calls that are computed together, values of tensors aside.
        self._form = (
            str(self._spec),
            *(
                (leaf.dtype, tuple(leaf.shape[1:]), number in self._per_row)
                if isinstance(leaf, torch.Tensor)
                else repr(leaf)
                for number, leaf in enumerate(self._leaves)
            ),
        )

    def fits(self, other: DenoiserCall) -> bool:
        """Whether both can be one forward: the same form, and the same values in tensors that have no rows."""
        return self._form == other._form and all(
            number in self._per_row or not isinstance(leaf, torch.Tensor) or torch.equal(leaf, other._leaves[number])
            for number, leaf in enumerate(self._leaves)
        )

    def compute_with(self, others: Sequence[DenoiserCall], forward: Callable[..., Any]) -> list[Any]:
        """One `forward` for this call and `others` that fit; the answer to each, this one first."""
        if not others:
            return [forward(*self.args, **self.kwargs)]
        calls = [self, *others]
        leaves = [
            torch.cat([call._expanded(number) for call in calls]) if number in self._per_row else leaf
            for number, leaf in enumerate(self._leaves)
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        answer, spec = pytree.tree_flatten(forward(*args, **kwargs))
        parts = [leaf.split([call.rows for call in calls]) for leaf in answer]
        return [pytree.tree_unflatten([part[number] for part in parts], spec) for number in range(len(calls))]

    def _expanded(self, number: int) -> torch.Tensor:
        """The tensor at an index, with one entry for each row: a timestep may be one number for all rows."""
        leaf: torch.Tensor = self._leaves[number]
        return leaf.expand(self.rows) if leaf.dim() == 0 else leaf
