"""Packed layers compute what plain ones do, and stand in for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from predictor.cpu import features, packed_linear
from predictor.cpu.packed_linear import LEAST_WEIGHTS, PackedLinear, pack_linear_layers

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3}
"""Of the largest output: float32 adds in another order, bfloat16 rounds the sum to 8 bits."""

ROOT = Path(__file__).parents[3]
here_bfloat16 = pytest.mark.skipif(not features.computes_bfloat16(), reason="this CPU computes no bfloat16")
types = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=here_bfloat16)])


def large(dtype: torch.dtype = torch.float32, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(513, 1030, bias=bias, dtype=dtype)  # no multiples of a kernel's blocks


def packed(model: torch.nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, PackedLinear)]


@types
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_those_of_the_plain_layer_for_any_number_of_rows(dtype: torch.dtype, bias: bool) -> None:
    plain = large(dtype, bias)
    layer = PackedLinear(plain.weight, plain.bias)
    with torch.inference_mode():
        for rows in [*range(34), 512]:
            x = torch.randn(rows, 513).to(dtype)
            expected = torch.nn.functional.linear(
                x.double(), plain.weight.double(), None if plain.bias is None else plain.bias.double()
            )
            for given in (x, x[None], x.t().contiguous().t()):
                found = layer(given).reshape(rows, 1030)
                assert found.dtype == dtype
                torch.testing.assert_close(found.double(), expected, rtol=0, atol=4 * TOLERANCE[dtype])
        one = torch.randn(513).to(dtype)
        torch.testing.assert_close(layer(one), plain(one), rtol=0, atol=4 * TOLERANCE[dtype])


@types
def test_rows_are_the_same_alone_and_in_a_batch(dtype: torch.dtype) -> None:
    layer = PackedLinear(large(dtype).weight, None)
    x = torch.randn(16, 513).to(dtype)
    with torch.inference_mode():
        together = layer(x)
        alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=4 * TOLERANCE[dtype])


def test_the_weight_can_be_read_and_stands_in_no_list_of_parameters() -> None:
    plain = large()
    layer = PackedLinear(plain.weight, plain.bias)
    assert torch.equal(layer.weight, plain.weight)
    assert (layer.in_features, layer.out_features) == (513, 1030)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert plain.weight.nbytes <= layer.nbytes < 1.1 * plain.weight.nbytes
    assert layer.to(torch.float32) is layer


def test_only_exact_layers_that_are_large_enough_are_packed() -> None:
    class Doubled(torch.nn.Linear):  # type: ignore[misc]  # torch's layers are not typed
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    side = int(LEAST_WEIGHTS[torch.float32] ** 0.5) + 1
    model = torch.nn.ModuleDict(
        {
            "large": torch.nn.Linear(side, side),
            "small": torch.nn.Linear(8, 8),
            "twice": Doubled(side, side),
            "meta": torch.nn.Linear(side, side, device="meta"),
            "short": torch.nn.Linear(side, side, dtype=torch.float16),
            "kept": torch.nn.Linear(side, side),
        }
    )
    model["again"] = model["large"]
    model._keep_in_fp32_modules = ["kept"]
    assert pack_linear_layers(model) == 1
    assert packed(model) == ["large"]
    assert model["again"] is model["large"]


def test_a_weight_is_converted_on_the_way() -> None:
    plain = large(torch.bfloat16)
    model = torch.nn.Sequential(plain)
    assert pack_linear_layers(model, torch.float32) == 1
    assert torch.equal(model[0].weight, plain.weight.float())
    assert model[0].bias.dtype == torch.float32


def test_the_largest_layers_are_packed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight is in memory twice until it is packed, and all that are packed are there beside it."""
    sides = [800, 1600, 1200]
    model = torch.nn.Sequential(*(torch.nn.Linear(side, side) for side in sides))
    original, packed_sides = torch.ops.mkldnn._reorder_linear_weight, []

    def noted(weight: torch.Tensor) -> torch.Tensor:
        packed_sides.append(len(weight))
        reordered: torch.Tensor = original(weight)
        return reordered

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", noted)
    assert pack_linear_layers(model) == 3
    assert packed_sides == [1600, 1200, 800]


@here_bfloat16
@pytest.mark.parametrize("rows", [2, 31, 32, 33, 64, 256])
def test_a_row_of_bfloat16_is_multiplied_to_the_same_bits_beside_any_others(rows: int) -> None:
    packed = PackedLinear(large(torch.bfloat16).weight, None, exact=True)
    x = torch.randn(rows, packed.in_features).to(torch.bfloat16)
    alone = torch.cat([packed(row[None]) for row in x])
    assert torch.equal(packed(x), alone)
    assert torch.equal(packed(x[None, :, None]), alone[None, :, None])


FORKED = """if True:
    import os, sys

    from predictor.cpu.threads import prepare_threads

    prepare_threads()
    import torch

    from predictor.cpu.packed_linear import PackedLinear, pack_linear_layers
    from predictor.cpu.threads import adopt_threads, limit_threads

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(513, 1030), torch.nn.Linear(1030, 513))
    x = torch.randn(4, 513)

    def written():
        with torch.inference_mode():
            return model(x)

    if not os.fork():
        limit_threads()
        adopt_threads()
        plain = written()
        assert pack_linear_layers(model) == 2
        torch.testing.assert_close(written(), plain, rtol=0, atol=1e-5)
        print("the same", flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_in_a_process_that_was_forked_with_torch_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "the same\n", ended.stderr


def refusing(*_: Any) -> torch.Tensor:
    raise RuntimeError("mkldnn_reorder_linear_weight: no kernel\nfor this CPU")


@contextmanager
def other_operators(operators: Any) -> Iterator[None]:
    with mock.patch.object(torch.ops, "mkldnn", operators):
        yield


@pytest.mark.parametrize("operators", [object(), mock.Mock(_reorder_linear_weight=refusing)])
def test_layers_stay_plain_where_the_operator_is_missing_or_refuses(operators: Any) -> None:
    model = torch.nn.Sequential(large())
    with other_operators(operators):
        assert pack_linear_layers(model) == 0
    assert type(model[0]) is torch.nn.Linear


def test_layers_stay_plain_with_another_torch() -> None:
    model = torch.nn.Sequential(large())
    with mock.patch.object(packed_linear, "TESTED", "2.1"):  # which 2.13 begins with
        assert pack_linear_layers(model) == 0
    assert packed(model) == []


@pytest.mark.parametrize(
    ("level", "computes"), [("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_BF16", True), (None, True)]
)
def test_bfloat16_is_computed_where_the_cpu_does_and_the_kernels_may(
    monkeypatch: pytest.MonkeyPatch, level: str | None, computes: bool
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if level:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", level)
    with mock.patch.object(torch.cpu, "get_capabilities", return_value={"avx2": True, "avx512_bf16": True}):
        assert features.computes_bfloat16() is computes
    with mock.patch.object(torch.cpu, "get_capabilities", return_value={"architecture": "aarch64", "bf16": True}):
        assert not features.computes_bfloat16()
        assert not features.computes_packed_float32()
