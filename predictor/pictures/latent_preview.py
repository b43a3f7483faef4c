"""Previews: what latents will look like, without the decoder.

The colour of each patch that a decoder makes is close to linear in its latents. That map is learned from a finished
picture, so nothing about a model has to be known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

SIDE = 64
"""Least pixels of the shorter side of a preview: latents may have as few as 16."""

_SAMPLES = 4096
"""Patches that the map is fitted to, at most about."""


class LatentPreview:
    """Colours from latents. `draw` returns None before the first `learn`."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._map: torch.Tensor | None = None  # [channels + 1, 3]

    @property
    def learned(self) -> bool:
        return self._map is not None

    def learn(self, latents: torch.Tensor, picture: Image.Image) -> None:
        """Fit the map to the last latents of a picture, in the form in which the pipeline keeps them."""
        known = self._as_image(latents, picture.size)
        if known is None or not known.isfinite().all():
            return
        _, height, width = known.shape
        small = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BOX), np.float32) / 255
        every = max(1, height * width // _SAMPLES)
        self._map = torch.linalg.lstsq(_columns(known)[::every], torch.from_numpy(small).view(-1, 3)[::every]).solution

    def draw(self, latents: torch.Tensor, size: tuple[int, int]) -> Image.Image | None:
        """A small picture of `latents` that become one of `size` (width, height)."""
        known = None if self._map is None else self._as_image(latents, size)
        if self._map is None or known is None:
            return None
        _, height, width = known.shape
        colours = (_columns(known) @ self._map).nan_to_num().clamp(0, 1).view(height, width, 3)
        small = Image.fromarray((colours.numpy() * 255).astype(np.uint8))
        scale = max(1.0, SIDE / min(width, height))
        return small.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)

    def _as_image(self, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor | None:
        """[channels, height, width] in float32 on the CPU. Flux and similar pipelines keep a sequence of patches. None
        for any other form."""
        if latents.dim() == 3:
            width, height = size
            try:
                latents = self._pipe._unpack_latents(latents, height, width, self._pipe.vae_scale_factor)
            except (AttributeError, TypeError, ValueError, RuntimeError):
                return None
        if latents.dim() == 5 and latents.shape[2] == 1:  # a video of one frame
            latents = latents[:, :, 0]
        if latents.dim() != 4:
            return None
        return latents[0].detach().float().cpu()


def _columns(latents: torch.Tensor) -> torch.Tensor:
    """[height x width, channels + 1], the last of them 1."""
    flat = latents.flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
