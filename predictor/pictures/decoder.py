"""From latents to a picture, in tiles where memory is short: the steps that led to them are not lost."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from predictor import metrics
from predictor.engine.memory.memory_pressure import free_cached_memory, is_out_of_memory

log = logging.getLogger(__name__)

_NAMES = ("vae", "movq", "vqvae")
"""What pipelines call their decoder."""

_TILE_SIZES = ("tile_sample_min_size", "tile_latent_min_size")
"""Sides of a tile in pixels and in latents, where a decoder has one size for both sides."""

_LEAST_TILE = 8
"""In latents; smaller tiles are mostly overlap."""

_JOINING = {"AutoencoderKL"}
"""Decoders that compute each row by itself, from its latents alone."""

TOGETHER = 64 * 64
"""Latents that are decoded together at most: more of them gain no speed, and take memory."""


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

    @property
    def form(self) -> tuple[torch.Size, torch.dtype] | None:
        """What has to be the same in calls that are decoded together; None where they cannot be."""
        # Decoders that draw no numbers take the generator and ignore it.
        if self.kwargs.get("return_dict") is not False or not self.kwargs.keys() <= {"return_dict", "generator"}:
            return None
        latents = self.args[0] if len(self.args) == 1 else None
        if not isinstance(latents, torch.Tensor) or latents.dim() != 4:
            return None
        return latents.shape, latents.dtype


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

    def may_wait(self, call: DecoderCall) -> bool:
        """Not where the pipeline has changed the decoder for this call and will change it back."""
        return bool(call.dtype == self._dtype)

    def groups(self, calls: Sequence[DecoderCall]) -> list[list[DecoderCall]]:
        """Those that are decoded together."""
        groups: list[list[DecoderCall]] = []
        joining = type(self._model).__name__ in _JOINING
        for call in calls:
            for group in groups:
                if joining and call.form and call.form == group[0].form and call.dtype == group[0].dtype:
                    rows, _, height, width = call.form[0]
                    if (len(group) + 1) * rows * height * width <= TOGETHER:
                        group.append(call)
                        break
            else:
                groups.append([call])
        return groups

    def compute_group(self, group: Sequence[DecoderCall]) -> list[Any]:
        """The answer to each call of a group. Of several, never in tiles: each may have memory enough by itself."""
        if len(group) == 1:
            return [self.compute(group[0])]
        latents = torch.cat([call.args[0] for call in group])
        [pictures] = self._model.decode(latents, return_dict=False)
        return [(part,) for part in pictures.split(len(latents) // len(group))]

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
