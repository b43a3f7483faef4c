"""Which sizes of pictures a pipeline makes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from contract.limits import PICTURE_SIDE
from contract.models.description import Size, SizeLimits
from contract.problems import ProblemError
from predictor.errors import ModelError

AREAS = 2
"""A picture may have so many times the pixels of one of the default size, unless a deployment says otherwise."""

_UNSTATED_SIDE = 1024
"""Of pipelines that state their default size only within their code, such as Z-Image."""

_ONLY = {
    "HiDreamImagePipeline": [
        (1024, 1024), (768, 1360), (1360, 768), (880, 1168), (1168, 880), (832, 1248), (1248, 832),
    ],
}  # fmt: skip
"""Of pipelines that scale any other size to their own area."""

_PATCHES_TOGETHER = {"GlmImagePipeline": 2, "QwenImage21Pipeline": 2}
"""Patches in a row that make one, where a pipeline demands it."""


@dataclass(frozen=True)
class PictureSizes:
    """Sides are multiples of `multiple` and at most `longest`, with at most `most_pixels` together. Where `only` names
    sizes, there are no others."""

    default: Size
    multiple: int
    most_pixels: int
    longest: int = PICTURE_SIDE
    only: tuple[Size, ...] = ()

    @property
    def limits(self) -> SizeLimits:
        """As a description of the model says them, and a request is held to them."""
        only = list(map(written, self.only)) or None
        return SizeLimits(multiple=self.multiple, side=self.longest, pixels=self.most_pixels, only=only)

    def read(self, text: str) -> Size:
        """As SizeLimits.read."""
        return self.limits.read(text)

    def nearest(self, size: Size) -> Size:
        """The size that is next to one of any picture. One that is too large becomes as large as by default, of the
        same form as far as that may be: there models paint best."""
        width, height = size
        if self.only:
            return min(self.only, key=lambda one: abs(math.log(one[0] * height / (one[1] * width))))
        scale = 1.0
        if self._too_many(size) or max(size) > self.longest:
            scale = min(math.sqrt(math.prod(self.default) / math.prod(size)), self.longest / max(size))
        nearest = [self._whole(side * scale, round) for side in size]
        if self._too_many((nearest[0], nearest[1])):
            nearest = [self._whole(side * scale, math.floor) for side in size]
        shorter, longer = sorted(nearest)
        if shorter * longer > self.most_pixels:  # a strip, whose shorter side became longer than it was
            longer = self._whole(self.most_pixels / shorter, math.floor)
        return (longer, shorter) if width > height else (shorter, longer)

    def _whole(self, side: float, rounded: Callable[[float], int]) -> int:
        """In multiples, one at least."""
        most = self.longest // self.multiple
        return self.multiple * min(max(1, rounded(side / self.multiple)), most)

    def up_to(self, pixels: int) -> PictureSizes:
        """Those of at most so many pixels."""
        only = tuple(size for size in self.only if math.prod(size) <= pixels)
        return replace(self, most_pixels=min(self.most_pixels, pixels), only=only)

    @property
    def largest(self) -> Size:
        """As many pixels as may be, or somewhat fewer, in the form of the default size."""
        if self.only:
            return max(self.only, key=math.prod)
        scale = math.sqrt(self.most_pixels / math.prod(self.default))
        width, height = (
            max(side, min(int(side * scale), self.longest) // self.multiple * self.multiple) for side in self.default
        )
        return width, height

    def _too_many(self, size: Size) -> bool:
        return math.prod(size) > self.most_pixels


def sizes_of(pipe: Any, denoiser: Any, size: str | None = None, max_pixels: int | None = None) -> PictureSizes:
    """Those of a pipeline of diffusers. `size` and `max_pixels` are the deployment's, in place of the model's default
    and of AREAS. Raises ModelError where the two do not go with the pipeline."""
    scale = int(getattr(pipe, "vae_scale_factor", 0) or getattr(pipe, "vae_scale_factor_spatial", 8))
    only: tuple[Size, ...] = tuple(getattr(pipe, "resolutions", _ONLY.get(type(pipe).__name__, [])))
    own = _default_size(pipe, denoiser, scale)
    if only and own not in only and not hasattr(pipe, "resolutions"):
        only = (own,)  # a model of another area than those that are known
    default = parse(size) if size else own
    longest = min(PICTURE_SIDE, _longest_side(denoiser, scale))
    most = max(map(math.prod, only)) if only else min(AREAS * math.prod(default), longest**2)
    if max_pixels and not only:
        most = min(max_pixels, longest**2)
    sizes = PictureSizes(default, _multiple(pipe, denoiser, scale), most, longest, only).up_to(max_pixels or most)
    if max_pixels and math.prod(default) > max_pixels:
        raise ModelError(f"--max-pixels {max_pixels} is less than the default size {written(default)} has; see --size")
    if size:
        try:
            sizes.read(size)
        except ProblemError as problem:
            raise ModelError(f"--{problem}") from None
    return sizes


def parse(text: str) -> Size:
    """The two numbers of "WIDTHxHEIGHT"."""
    width, height = map(int, text.split("x"))
    return width, height


def written(size: Size) -> str:
    return "x".join(map(str, size))


def _default_size(pipe: Any, denoiser: Any, scale: int) -> Size:
    """As the pipelines themselves compute it, each in its way."""
    parameters = inspect.signature(pipe.__call__).parameters
    size = getattr(pipe, "default_sample_size", None) or getattr(denoiser.config, "sample_size", None)
    sides = [parameters[name].default for name in ("height", "width")]
    binned = "use_resolution_binning" in parameters and size  # Sana then takes its default for a size to scale to
    if hasattr(pipe, "get_default_resolution"):  # PRX, whose default_sample_size is in pixels
        scale, sides = 1, [pipe.get_default_resolution()] * 2
    elif not binned and all(isinstance(side, int) for side in sides):
        scale = 1
    elif not size:
        resolution = parameters.get("output_resolution")  # Qwen-Image 2.1
        scale, sides = 1, [_UNSTATED_SIDE if resolution is None else resolution.default] * 2
    else:
        sides = [size, size] if isinstance(size, int) else list(size)
    height, width = (min(side * scale, PICTURE_SIDE) for side in sides)
    return width, height


def _multiple(pipe: Any, denoiser: Any, scale: int) -> int:
    """Some pipelines round to a multiple of these, some refuse other sizes, and most refuse all but multiples of 8."""
    processor = getattr(pipe, "image_processor", None)
    factors = [8] if processor is None else [8, int(processor.config.vae_scale_factor)]
    scale *= _PATCHES_TOGETHER.get(type(pipe).__name__, 1)
    for patch in (getattr(pipe, "patch_size", 1), getattr(denoiser.config, "patch_size", 1)):
        factors.append(scale * int(patch[-1] if isinstance(patch, list | tuple) else patch or 1))
    if hasattr(pipe, "movq"):  # Kandinsky 3 rounds its latents up to a multiple of 8
        factors.append(scale * 8)
    return math.lcm(*factors)


def _longest_side(denoiser: Any, scale: int) -> int:
    """Learned positions end somewhere."""
    most = getattr(denoiser.config, "pos_embed_max_size", None)
    if not most:
        return PICTURE_SIDE
    if type(denoiser).__name__.startswith("AuraFlow"):  # counts both sides together
        most = math.isqrt(most)
    return int(most * denoiser.config.patch_size * scale)
