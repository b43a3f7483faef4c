"""What decides how one picture looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class SourcePicture:
    """What a picture begins with, of the size that it is to have; where there is a `mask`, only what is white in it is
    painted."""

    image: Image
    mask: Image | None = None


@dataclass(frozen=True)
class DiffusionParameters:
    """Of one picture, with its own `seed` and all defaults filled in. `width` and `height` are in pixels."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    guidance: float | None = None
    negative_prompt: str | None = None
    source: SourcePicture | None = None
    strength: float | None = None

    @property
    def taken_steps(self) -> int:
        """Denoising steps that are computed, of `steps` that begin with noise: the last ones, where there is a
        source."""
        return self.steps if self.strength is None else max(1, int(self.steps * self.strength))
