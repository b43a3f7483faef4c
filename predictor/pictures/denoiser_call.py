"""Calls of a denoiser, which become one forward where they fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

_ROW_DIMENSION: dict[str, int | None] = {
    "encoder_hidden_states_llama3": 1,  # HiDream: [layer, row, ...]
    "padding_mask": None,  # Cosmos repeats it itself
    "text_rope_pos": None,  # Kandinsky 5: positions, which all rows share
    "visual_rope_pos": None,
}
"""The dimension that counts rows, of arguments in which it is not the first; None where there is none."""

_POSITIONS = ("txt_ids", "img_ids")
"""Of each token, and in some pipelines of each row before: [token, axis] may look like [row, ...] for a short text."""

_TEXT, _MASK = "encoder_hidden_states", "encoder_hidden_states_mask"
"""The arguments of Qwen-Image and its kin, whose text is as long as its prompt: [row, token, channel], and which tokens
are no padding, [row, token]; None for all."""


class DenoiserCall:
    """The arguments of one call. It computes `rows` rows: one picture, or two for its guidance."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        # Z-Image takes and returns a list with the tensor of each row.
        self._is_leaf = _is_list if args and _is_list(args[0]) else None
        named, self._spec = pytree.tree_flatten_with_path((args, kwargs), is_leaf=self._is_leaf)
        self._leaves = [leaf for _, leaf in named]
        # The tensor of most dimensions is the latents, whatever the argument is called.
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, torch.Tensor)]
        self.rows = len(args[0]) if self._is_leaf else max(tensors, key=lambda tensor: tensor.dim()).shape[0]
        self._padded = isinstance(kwargs.get(_TEXT), torch.Tensor) and _MASK in kwargs
        names = [str(getattr(path[1], "key", "")) for path, _ in named]
        self._dimensions = [self._row_dimension(name, leaf) for name, leaf in zip(names, self._leaves, strict=True)]
        # Of every argument what has to be the same in calls that are computed together, values of tensors aside.
        self._form = (str(self._spec), *map(self._leaf_form, names, self._leaves, self._dimensions))

    def fits(self, other: DenoiserCall) -> bool:
        """Whether both can be one forward: the same form, and the same values in tensors that have no rows."""
        return self._form == other._form and all(
            dimension is not None or not isinstance(leaf, torch.Tensor) or torch.equal(leaf, of_other)
            for leaf, of_other, dimension in zip(self._leaves, other._leaves, self._dimensions, strict=True)
        )

    def compute_with(self, others: Sequence[DenoiserCall], forward: Callable[..., Any]) -> list[Any]:
        """One `forward` for this call and `others` that fit; the answer to each, this one first."""
        if not others:
            return [forward(*self.args, **self.kwargs)]
        calls = _of_one_length([self, *others])
        leaves = [
            leaf if dimension is None else _joined([call._expanded(number) for call in calls], dimension)
            for number, (leaf, dimension) in enumerate(zip(calls[0]._leaves, self._dimensions, strict=True))
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        answer, spec = pytree.tree_flatten(forward(*args, **kwargs), is_leaf=self._is_leaf)
        parts = [_split(leaf, [call.rows for call in calls]) for leaf in answer]
        return [pytree.tree_unflatten([part[number] for part in parts], spec) for number in range(len(calls))]

    def with_text_of(self, length: int) -> DenoiserCall:
        """The same call with its text padded to `length` tokens, and a mask that says so."""
        text, mask = self.kwargs[_TEXT], self.kwargs[_MASK]
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask.bool()
        more = length - text.shape[1]
        return DenoiserCall(self.args, self.kwargs | {_TEXT: pad(text, (0, 0, 0, more)), _MASK: pad(mask, (0, more))})

    def _row_dimension(self, name: str, leaf: Any) -> int | None:
        if _is_list(leaf):
            return 0 if len(leaf) == self.rows else None
        if not isinstance(leaf, torch.Tensor):
            return 0 if self._padded and name == _MASK else None
        if name in _ROW_DIMENSION:
            return _ROW_DIMENSION[name]
        if name in _POSITIONS and leaf.dim() == 2:
            return None
        return 0 if leaf.dim() == 0 or leaf.shape[0] == self.rows else None

    def _leaf_form(self, name: str, leaf: Any, dimension: int | None) -> Any:
        if self._padded and name == _MASK:
            return _MASK
        if self._padded and name == _TEXT:
            return leaf.dtype, leaf.shape[2:]
        if _is_list(leaf):  # texts may be of any length, the latents of one size
            same = leaf[0].shape if leaf is self.args[0] else leaf[0].shape[1:]
            return dimension is None, leaf[0].dtype, same
        if isinstance(leaf, torch.Tensor):
            return leaf.dtype, dimension, tuple(size for at, size in enumerate(leaf.shape) if at != dimension)
        # What is no plain value may keep a state, as a cache does: it is the same only if it is the same object.
        return repr(leaf) if isinstance(leaf, bool | int | float | str | torch.dtype | None) else id(leaf)

    def _expanded(self, number: int) -> Any:
        """The argument at an index, with one entry for each row: a timestep may be one number for all rows."""
        leaf = self._leaves[number]
        return leaf.expand(self.rows) if isinstance(leaf, torch.Tensor) and leaf.dim() == 0 else leaf


def _is_list(node: Any) -> bool:
    return isinstance(node, list) and bool(node) and all(isinstance(each, torch.Tensor) for each in node)


def _of_one_length(calls: list[DenoiserCall]) -> list[DenoiserCall]:
    """Calls that differ in the length of their text, padded to the longest."""
    texts = [call.kwargs[_TEXT].shape[1] for call in calls if call._padded]
    if len(set(texts)) <= 1 and all(call.kwargs.get(_MASK) is None for call in calls if call._padded):
        return calls
    return [call.with_text_of(max(texts)) for call in calls]


def _joined(leaves: list[Any], dimension: int) -> Any:
    first = leaves[0]
    if first is None:  # the mask of texts without padding
        return None
    return [row for leaf in leaves for row in leaf] if isinstance(first, list) else torch.cat(leaves, dimension)


def _split(leaf: Any, rows: list[int]) -> list[Any]:
    if isinstance(leaf, torch.Tensor):
        return list(leaf.split(rows))
    begins = [sum(rows[:number]) for number in range(len(rows))]
    return [leaf[begin : begin + count] for begin, count in zip(begins, rows, strict=True)]
