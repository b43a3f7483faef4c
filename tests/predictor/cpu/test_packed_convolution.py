"""Packed convolutions: what plain ones compute, whatever they are given, and plain ones where that cannot be."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from predictor.cpu import packed_convolution
from predictor.cpu.features import computes_bfloat16, computes_packed_float32
from predictor.cpu.packed_convolution import LAYOUTS, PackedConvolution, pack_convolutions

packs = pytest.mark.skipif(not computes_packed_float32(), reason="oneDNN has no such kernels for this CPU")


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    torch.manual_seed(0)
    packed_convolution._works.cache_clear()
    with torch.no_grad():
        yield
    packed_convolution._works.cache_clear()  # a test may have had it say no


def model(dtype: torch.dtype = torch.float32, **options: Any) -> torch.nn.Sequential:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(6, 48, 3, padding=1, **options),
        torch.nn.Conv2d(48, 48, 3, padding=1, stride=2, bias=False, **options),
        torch.nn.Conv2d(48, 24, 1, **options),
    )
    return layers.to(dtype)


@packs
@pytest.mark.parametrize("side", [1, 4, 16])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_they_compute_what_plain_ones_do(rows: int, side: int) -> None:
    plain = model()
    packed = copy.deepcopy(plain)
    assert pack_convolutions(packed) == 3
    pictures = torch.randn(rows, 6, side, side)
    assert torch.allclose(packed(pictures), plain(pictures), atol=1e-5)
    assert torch.allclose(packed(pictures.to(memory_format=torch.channels_last)), plain(pictures), atol=1e-5)


@pytest.mark.skipif(not computes_bfloat16(), reason="this CPU does not compute bfloat16")
def test_they_compute_in_bfloat16_what_plain_ones_do() -> None:
    plain = model(torch.bfloat16)
    packed = copy.deepcopy(plain)
    assert pack_convolutions(packed) == 3
    pictures = torch.randn(2, 6, 16, 16, dtype=torch.bfloat16)
    assert torch.allclose(packed(pictures), plain(pictures), atol=0.02)


@packs
def test_numbers_of_pictures_share_a_layout_and_sizes_are_forgotten() -> None:
    packed = model()
    pack_convolutions(packed)
    first: Any = packed[0]
    for rows in range(1, 9):
        packed(torch.randn(rows, 6, 16, 16))
    assert len({id(each) for each in _held(first)}) == 1
    for side in range(8, 80, 2):
        packed(torch.randn(1, 6, side, side))
        assert len({id(each) for each in _held(first)}) <= LAYOUTS


def _held(layer: PackedConvolution) -> list[torch.Tensor]:
    return list(layer._packed.values())


@packs
def test_a_model_that_is_converted_afterwards_computes_in_its_new_type() -> None:
    plain = model()
    packed = copy.deepcopy(plain)
    pack_convolutions(packed)
    pictures = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    assert torch.allclose(packed.double()(pictures), plain.double()(pictures))


@packs
def test_a_copy_computes_by_itself() -> None:
    packed = model()
    pack_convolutions(packed)
    pictures = torch.randn(1, 6, 8, 8)
    expected = packed(pictures)
    copied: Any = copy.deepcopy(packed)
    torch.nn.init.zeros_(packed[0].weight)
    assert torch.equal(copied(pictures), expected)
    assert isinstance(copied[0], PackedConvolution)


@packs
def test_a_layer_in_two_places_stays_one() -> None:
    shared = torch.nn.Conv2d(4, 4, 3, padding=1)
    layers = torch.nn.ModuleDict({"a": shared, "b": shared})
    assert pack_convolutions(layers) == 1
    assert layers["a"] is layers["b"]


def test_other_layers_stay_plain() -> None:
    class Other(torch.nn.Conv2d):  # type: ignore[misc]
        pass

    layers = torch.nn.Sequential(
        Other(4, 4, 3),
        torch.nn.Conv2d(4, 4, 3, padding="same"),
        torch.nn.Conv2d(4, 4, 3, groups=2),
        torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        torch.nn.Conv2d(4, 4, 3, dtype=torch.float16),
        torch.nn.Conv2d(1024, 1025, 1),
    )
    assert pack_convolutions(layers) == 0


def test_layers_stay_plain_with_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert pack_convolutions(model()) == 0


@packs
def test_layers_stay_plain_where_the_operator_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(PackedConvolution, "_pack", refuse)
    assert pack_convolutions(model()) == 0
