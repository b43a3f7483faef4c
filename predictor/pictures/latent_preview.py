"""Previews: what latents will look like, without the decoder.

A decoder is close to linear in the colour of each of its patches. The map is learned from a finished picture, which any
pipeline yields, so nothing about a model has to be known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

SIDE = 64
"""Shorter side of a preview at least, in pixels: latents alone may have as few as 16."""

_SAMPLES = 4096


class LatentPreview:
    """Colours from latents. `draw` gives nothing before the first `learn`."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._map: torch.Tensor | None = None  # [channels + 1, 3]

    @property
    def learned(self) -> bool:
        return self._map is not None

    def learn(self, latents: torch.Tensor, picture: Image.Image) -> None:
        """From the last latents of a picture, in the form in which the pipeline keeps them."""
        known = self._by_place(latents, picture.size)
        if known is None or not known.isfinite().all():
            return
        _, height, width = known.shape
        small = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BOX), np.float32) / 255
        every = max(1, height * width // _SAMPLES)
        self._map = torch.linalg.lstsq(_columns(known)[::every], torch.from_numpy(small).view(-1, 3)[::every]).solution

    def draw(self, latents: torch.Tensor, size: tuple[int, int]) -> Image.Image | None:
        """A small picture of `latents` that are to become one of `size` (width, height)."""
        known = None if self._map is None else self._by_place(latents, size)
        if self._map is None or known is None:
            return None
        _, height, width = known.shape
        colours = (_columns(known) @ self._map).nan_to_num().clamp(0, 1).view(height, width, 3)
        small = Image.fromarray((colours.numpy() * 255).astype(np.uint8))
        scale = max(1.0, SIDE / min(width, height))
        return small.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)

    def _by_place(self, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor | None:
        """[channels, height, width] in float32 on the CPU; Flux and its kin keep them as a sequence of patches. None
        where they are kept in yet another way."""
        if latents.dim() == 3:
            width, height = size
            try:
                latents = self._pipe._unpack_latents(latents, height, width, self._pipe.vae_scale_factor)
            except (AttributeError, TypeError):
                return None
        if latents.dim() == 5 and latents.shape[2] == 1:  # a film of one picture
            latents = latents[:, :, 0]
        if latents.dim() != 4:
            return None
        return latents[0].detach().float().cpu()


def _columns(latents: torch.Tensor) -> torch.Tensor:
    """[places, channels + 1], the last of them 1."""
    flat = latents.flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
