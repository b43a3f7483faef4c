"""Keys and values of a running batch: one row per slot, allocated once.

Each row writes its next token at its own position, and attention is masked to what the row has written. A row that
joins copies no other, one that leaves at most the last two, and memory is the same at the first request and the last.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """A cache of `slots` rows of `length` tokens for each of `layers` layers. Before each forward, call
    one of the methods `expect_…`."""

    def __init__(self, layers: int, slots: int, length: int) -> None:
        self.slots = slots
        self.length = length
        self._window = _Window(slots, length)
        super().__init__(layers=[_SlotLayer(self._window) for _ in range(layers)])

    def expect_prompts(self, first_row: int, rows: int, start: int) -> None:
        """The next forward has `rows` prompts from position `start` on, for the rows from `first_row` on."""
        self._window.rows = slice(first_row, first_row + rows)
        self._window.start = start
        self._window.positions = None

    def expect_tokens(self, positions: torch.Tensor, longest: int) -> None:
        """The next forward has one token for each of the first rows, at `positions` [rows], the largest of which is at
        most `longest` - 1."""
        self._window.rows = torch.arange(len(positions), device=positions.device)
        self._window.positions = positions
        self._window.longest = longest
        self._window.copied = False

    def expect_copies(self, positions: torch.Tensor, longest: int) -> None:
        """The next forward has the tokens at `positions` [tokens] of the first row, each as if it were a row's only
        one; the largest position is at most `longest` - 1."""
        self.expect_tokens(positions, longest)
        self._window.rows = torch.zeros_like(positions)
        self._window.copied = True

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row over another row."""
        for states in self._states:
            states[target, :, :length] = states[source, :, :length]

    @torch.inference_mode()
    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` tokens of two rows."""
        for states in self._states:
            held = states[one, :, :length].clone()
            states[one, :, :length] = states[other, :, :length]
            states[other, :, :length] = held

    def replace(self, row: int, source: int, length: int, kept: int) -> None:
        """A row gets `length` tokens of another one, which gets its first `kept` tokens."""
        if kept:
            self.swap(row, source, max(length, kept))
        else:
            self.move(source, row, length)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token of one row in all layers. Known after the first forward."""
        return sum(states.shape[1] * states.shape[3] * states.element_size() for states in self._states)

    @property
    def _states(self) -> list[torch.Tensor]:
        """Keys and values of every layer that writes some: a layer may attend to those of another."""
        return [states for layer in self.layers if layer.is_initialized for states in (layer.keys, layer.values)]


class _Window:
    """What part of the cache the next forward reads and writes; shared by all layers."""

    def __init__(self, slots: int, length: int) -> None:
        self.slots = slots
        self.length = length
        self.rows: slice | torch.Tensor = slice(0, 0)
        self.start = 0
        self.longest = 0
        self.positions: torch.Tensor | None = None  # None while prompts come
        self.copied = False  # whether all positions are of the first row


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    def __init__(self, window: _Window) -> None:
        super().__init__()
        self._window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = self._allocate(key_states)
        self.values = self._allocate(value_states)
        self.is_initialized = True

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = like.shape
        # Zeros: attention multiplies masked values by zero, and uninitialized memory may hold NaN.
        shape = (self._window.slots, heads, self._window.length, size)
        if like.device.type != "cpu":
            return like.new_zeros(shape)
        return _mapped_zeros(math.prod(shape) * like.element_size()).view(like.dtype).view(shape)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self._window
        if window.positions is None:
            end = window.start + key_states.shape[2]
            self.keys[window.rows, :, window.start : end] = key_states
            self.values[window.rows, :, window.start : end] = value_states
            return self.keys[window.rows, :, :end], self.values[window.rows, :, :end]
        self.keys[window.rows, :, window.positions] = key_states[:, :, 0]
        self.values[window.rows, :, window.positions] = value_states[:, :, 0]
        return self._read(self.keys, len(window.positions)), self._read(self.values, len(window.positions))

    def _read(self, states: torch.Tensor, rows: int) -> torch.Tensor:
        states = states[: 1 if self._window.copied else rows, :, : self._window.longest]
        return states.expand(rows, -1, -1, -1)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        if self._window.positions is None:
            return self._window.start + query_length, 0
        return self._window.longest, 0

    def get_seq_length(self) -> int:
        return self._window.start if self._window.positions is None else self._window.longest - 1

    def get_max_length(self) -> int:
        return self._window.length

    def reset(self) -> None:
        """Nothing to do: old rows are masked, and overwritten."""

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        raise NotImplementedError("slots have no beams")


def _mapped_zeros(size: int) -> torch.Tensor:
    """So many bytes of the host's memory, which the system gives and clears page by page as they are first used. torch
    would clear gigabytes at once; and huge pages would give every row of every layer 2 MiB for its first token."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


class AttentionMasks:
    """Which keys of a SlotCache each position may attend to, as the model's kind of attention takes it."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        self._window = _sliding_window(config)
        self._eager = model.config._attn_implementation == "eager"
        self._dtype = model.dtype

    def make(self, queries: torch.Tensor, length: int) -> Any:
        """For query positions [rows, queries, 1] and the first `length` keys, [rows, 1, queries, length]; for each
        layer type, if the model has several."""
        keys = torch.arange(length, device=queries.device)[None, None]
        full = keys <= queries
        near = full if self._window is None else full & (keys > queries - self._window)
        if not self._layer_types:
            return self._as_model_mask(near)
        return {
            layers: self._as_model_mask(near if layers == "sliding_attention" else full) for layers in self._layer_types
        }

    def _as_model_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Eager attention adds its mask to the scores; other implementations take booleans."""
        mask = mask[:, None]
        if not self._eager:
            return mask
        return torch.where(mask, 0.0, torch.finfo(self._dtype).min).to(self._dtype)


def _sliding_window(config: Any) -> int | None:
    """Tokens that a layer with sliding attention attends to; None where no layer has it."""
    layer_types = getattr(config, "layer_types", None)
    slides = "sliding_attention" in layer_types if layer_types else getattr(config, "use_sliding_window", True)
    return getattr(config, "sliding_window", None) if slides else None
