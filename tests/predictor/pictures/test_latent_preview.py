"""Previews: colours from latents, learned from one finished picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from predictor.pictures.latent_preview import SIDE, LatentPreview

pytestmark = pytest.mark.slow

COLOURS = np.random.default_rng(0).normal(size=(4, 3))


def latents(seed: int, height: int = 16, width: int = 16) -> torch.Tensor:
    """Some with large forms in them."""
    small = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear")


def decoded(known: torch.Tensor, scale: int = 8) -> Image.Image:
    """As a decoder would: close to linear, with detail of its own."""
    colours = np.tanh(np.einsum("chw,cr->hwr", known[0].numpy(), COLOURS)) / 2 + 0.5
    large = np.kron(colours, np.ones((scale, scale, 1)))
    detail = np.random.default_rng(1).normal(0, 0.05, large.shape)
    return Image.fromarray((np.clip(large + detail, 0, 1) * 255).astype(np.uint8))


def similar(one: Image.Image, other: Image.Image) -> float:
    sides = [np.asarray(each.resize((16, 16), Image.Resampling.BOX), np.float64).ravel() for each in (one, other)]
    matrix: Any = np.corrcoef(np.stack(sides))
    return float(matrix[0, 1])


@pytest.fixture
def preview() -> LatentPreview:
    """Has seen one picture."""
    learned = LatentPreview(SimpleNamespace())
    learned.learn(latents(0), decoded(latents(0)))
    return learned


def drawn(preview: LatentPreview, known: torch.Tensor, size: tuple[int, int] = (128, 128)) -> Image.Image:
    image = preview.draw(known, size)
    assert image is not None
    return image


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_preview_of_the_last_latents_resembles_the_picture(preview: LatentPreview, seed: int) -> None:
    likeness = similar(drawn(preview, latents(seed)), decoded(latents(seed)))

    print(f"correlation {likeness:.3f}")
    assert likeness > 0.9
    assert abs(similar(drawn(preview, latents(seed)), decoded(latents(seed + 10)))) < 0.6, "and not just any"


def test_a_preview_is_small_and_has_the_form_of_the_picture(preview: LatentPreview) -> None:
    assert drawn(preview, latents(1)).size == (SIDE, SIDE)
    assert drawn(preview, latents(1, 16, 32), (256, 128)).size == (2 * SIDE, SIDE)
    assert drawn(preview, latents(1, 128, 96), (768, 1024)).size == (96, 128), "latents of more are not blown up"


def test_before_the_first_picture_there_is_none() -> None:
    assert LatentPreview(SimpleNamespace()).draw(latents(1), (128, 128)) is None


def test_packed_latents_are_unpacked_by_their_pipeline(preview: LatentPreview) -> None:
    from diffusers import FluxPipeline

    pipeline: Any = FluxPipeline
    packed = pipeline._pack_latents(latents(1), 1, 4, 16, 16)
    assert packed.dim() == 3
    packing = LatentPreview(SimpleNamespace(_unpack_latents=pipeline._unpack_latents, vae_scale_factor=8))
    packing.learn(pipeline._pack_latents(latents(0), 1, 4, 16, 16), decoded(latents(0)))

    assert drawn(packing, packed).tobytes() == drawn(preview, latents(1)).tobytes()


def test_a_film_of_one_picture_is_a_picture(preview: LatentPreview) -> None:
    assert drawn(preview, latents(1)[:, :, None]).tobytes() == drawn(preview, latents(1)).tobytes()


@pytest.mark.parametrize("known", [torch.zeros(1, 64, 16), torch.zeros(1, 4), torch.zeros(1, 4, 3, 16, 16)])
def test_of_latents_in_an_unknown_form_nothing_is_learned_or_drawn(preview: LatentPreview, known: torch.Tensor) -> None:
    preview.learn(known, decoded(latents(0)))

    assert preview.draw(known, (128, 128)) is None
    assert similar(drawn(preview, latents(1)), decoded(latents(1))) > 0.9, "what it knew it still knows"


def test_latents_that_are_no_numbers_harm_nobody(preview: LatentPreview) -> None:
    lost = torch.full((1, 4, 16, 16), torch.nan)

    preview.learn(lost, Image.new("RGB", (128, 128)))

    assert drawn(preview, lost).getextrema() == ((0, 0),) * 3
    assert similar(drawn(preview, latents(1)), decoded(latents(1))) > 0.9


def test_half_precision_and_grey_pictures_do_too() -> None:
    grey = LatentPreview(SimpleNamespace())
    grey.learn(latents(0).bfloat16(), decoded(latents(0)).convert("L"))

    assert similar(drawn(grey, latents(1).half()).convert("L"), decoded(latents(1)).convert("L")) > 0.8
