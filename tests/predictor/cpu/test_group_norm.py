"""Group normalization of bfloat16: within the rounding of its result of what float32 gives."""

from __future__ import annotations

import copy

import torch

from predictor.cpu.group_norm import widen_group_norms


def test_it_gives_what_float32_gives_but_for_the_last_rounding() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.GroupNorm(4, 16))
    torch.nn.init.normal_(plain[0].weight)
    plain.bfloat16()
    widened = copy.deepcopy(plain)
    assert widen_group_norms(widened) == 1
    pictures = torch.randn(2, 16, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)

    with torch.no_grad():
        answer = widened(pictures)
        expected = plain.float()(pictures.float())

    assert answer.dtype == torch.bfloat16
    assert torch.equal(answer, expected.bfloat16())
    assert answer.is_contiguous(memory_format=torch.channels_last)


def test_other_types_stay_as_they_are() -> None:
    layers = torch.nn.Sequential(torch.nn.GroupNorm(4, 16), torch.nn.GroupNorm(4, 16, dtype=torch.float16))
    assert widen_group_norms(layers) == 0
