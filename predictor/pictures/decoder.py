"""From latents to a picture, in tiles where memory is short: the steps that led to them are not lost."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch

from predictor import metrics
from predictor.engine.memory_pressure import free_cached_memory, is_out_of_memory

log = logging.getLogger(__name__)

_NAMES = ("vae", "movq", "vqvae")
"""What pipelines call their decoder."""

_TILE_SIZES = ("tile_sample_min_size", "tile_latent_min_size")
"""Sides of a tile in pixels and in latents, where a decoder has one size for both sides."""

_LEAST_TILE = 8
"""In latents; smaller tiles are mostly overlap."""


class DecoderCall:
    """The arguments of one call, and the dtype that the decoder had then: some pipelines decode in another."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype) -> None:
        self.args = args
        self.kwargs = kwargs
        self.dtype = dtype

    @property
    def side(self) -> int:
        """The longer side of the latents."""
        tensors = [each for each in (*self.args, *self.kwargs.values()) if isinstance(each, torch.Tensor)]
        return int(max(tensors[0].shape[-2:]))


class Decoder:
    """The decoder of a pipeline, if it has one that is known."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._name = next((name for name in _NAMES if getattr(pipe, name, None) is not None), None)
        self._dtype: torch.dtype | None = self._model.dtype if self._name else None

    @property
    def _model(self) -> Any:
        return getattr(self._pipe, str(self._name))

    def replace(self, pipe: Any, decode: Callable[[DecoderCall], Any]) -> None:
        """Have a copy of the pipeline call `decode` in the place of its decoder. It gets a copy of that, with the same
        weights."""
        if self._name is None:
            return
        model = self._model
        replaced = copy.copy(model)
        object.__setattr__(replaced, "decode", lambda *args, **kwargs: decode(DecoderCall(args, kwargs, model.dtype)))
        object.__setattr__(pipe, self._name, replaced)

    def compute(self, call: DecoderCall) -> Any:
        """The answer to a call: decoded at once, or in tiles where there is no memory for that. After it has raised for
        want of memory it may be computed again."""
        model = self._model
        try:
            if model.dtype != call.dtype:
                model.to(call.dtype)
            try:
                return model.decode(*call.args, **call.kwargs)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of `except`: the exception holds frames, and those hold tensors.
            metrics.OUT_OF_MEMORY.inc()
            log.warning("out of memory while a picture is decoded; it is tried again in tiles")
            free_cached_memory()
            with _tiled(model, call.side):
                return model.decode(*call.args, **call.kwargs)
        except BaseException:
            if model.dtype != self._dtype:  # other pictures are decoded before this one is tried again
                model.to(self._dtype)
            raise


@contextlib.contextmanager
def _tiled(model: Any, side: int) -> Iterator[None]:
    """Decode in tiles that are smaller than latents of this side. Not for longer: tiles differ a little in tone."""
    if getattr(model, "use_tiling", True):  # it decodes in tiles already, or cannot
        yield
        return
    sizes = {name: getattr(model, name) for name in _TILE_SIZES if isinstance(getattr(model, name, None), int)}
    model.enable_tiling()
    try:
        while len(sizes) == 2 and model.tile_latent_min_size >= max(side, 2 * _LEAST_TILE):
            for name in sizes:
                setattr(model, name, getattr(model, name) // 2)
        yield
    finally:
        for name, size in sizes.items():
            setattr(model, name, size)
        model.disable_tiling()
