"""The decoder of a pipeline: in tiles where there is no memory for more, and as it was after that."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from predictor.pictures.decoder import Decoder, DecoderCall
from tests.support import pipelines

pytestmark = pytest.mark.slow


@pytest.fixture
def vae() -> Iterator[Any]:
    pipelines.seeded()
    with torch.no_grad():
        yield pipelines.decoder(4)


def watch(vae: Any, most: int) -> list[int]:
    """The sides of the latents that are decoded in one piece; more than `most` do not fit."""
    sides: list[int] = []
    forward = vae.decoder.forward

    def decoding(latents: Any, *arguments: Any) -> Any:
        sides.append(latents.shape[-1])
        if sides[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(latents, *arguments)

    vae.decoder.forward = decoding
    return sides


@pytest.mark.parametrize("tile", [8, 16, 64])
def test_tiles_are_smaller_than_the_picture_whatever_the_decoder_was_trained_for(vae: Any, tile: int) -> None:
    """As of SDXL, whose tiles are of 1024 pixels."""
    vae.tile_latent_min_size, vae.tile_sample_min_size = tile, 2 * tile
    latents = torch.randn(1, 4, 16, 16)
    expected = vae.decode(latents).sample
    sides = watch(vae, most=8)

    decoded = Decoder(SimpleNamespace(vae=vae)).compute(DecoderCall((latents,), {}, vae.dtype)).sample

    assert sides[0] == 16
    assert max(sides[1:]) == 8
    assert decoded.shape == expected.shape
    assert (vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size) == (False, tile, 2 * tile)


def test_one_that_is_tried_again_is_decoded_in_the_dtype_that_its_pipeline_chose(vae: Any) -> None:
    """Stable Diffusion XL in float16 decodes in float32, and others are decoded before this one is tried again."""
    latents = torch.randn(1, 4, 16, 16)
    expected = vae.decode(latents).sample
    decoder = Decoder(SimpleNamespace(vae=vae.half()))
    vae.float()
    call = DecoderCall((latents,), {}, torch.float32)
    sides = watch(vae, most=1)

    with pytest.raises(torch.OutOfMemoryError):
        decoder.compute(call)
    assert vae.dtype == torch.float16
    assert not vae.use_tiling
    assert len(sides) == 2
    del vae.decoder.forward

    assert torch.allclose(decoder.compute(call).sample, expected, atol=0.01)
    assert vae.dtype == torch.float32, "its pipeline converts it again"


def test_what_is_not_a_matter_of_memory_is_not_tried_again(vae: Any) -> None:
    calls: list[None] = []

    def fail(_latents: Any) -> None:
        calls.append(None)
        raise RuntimeError("shapes cannot be multiplied")

    vae.decode = fail

    with pytest.raises(RuntimeError, match="shapes"):
        Decoder(SimpleNamespace(vae=vae)).compute(DecoderCall((torch.zeros(1),), {}, vae.dtype))
    assert len(calls) == 1


def test_a_pipeline_without_a_known_decoder_is_left_as_it_is() -> None:
    pipe = SimpleNamespace(first=1)

    Decoder(pipe).replace(pipe, lambda _call: None)

    assert vars(pipe) == {"first": 1}


def test_calls_of_one_size_are_decoded_together_as_long_as_they_are_small(vae: Any) -> None:
    decoder = Decoder(SimpleNamespace(vae=vae))
    small = [call(vae, 16, generator=torch.Generator()) for _ in range(3)]
    others = [call(vae, 8), DecoderCall((torch.randn(1, 4, 16, 16),), {}, vae.dtype), call(vae, 64), call(vae, 64)]
    alone = [decoder.compute(each)[0] for each in small]

    groups = decoder.groups([*small[:2], *others, small[2]])

    assert [len(group) for group in groups] == [3, 1, 1, 1, 1]
    sides = watch(vae, most=16)
    answers = decoder.compute_group(groups[0])
    assert sides == [16], "in one call"
    for (together,), expected in zip(answers, alone, strict=True):
        assert torch.allclose(together, expected, atol=1e-5)


def test_a_decoder_that_may_mix_rows_has_one_at_a_time(vae: Any) -> None:
    class Other(type(vae)):  # type: ignore[misc]
        pass

    vae.__class__ = Other
    assert len(Decoder(SimpleNamespace(vae=vae)).groups([call(vae, 8), call(vae, 8)])) == 2


def call(vae: Any, side: int, **options: Any) -> DecoderCall:
    return DecoderCall((torch.randn(1, 4, side, side),), {"return_dict": False, **options}, vae.dtype)
