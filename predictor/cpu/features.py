"""What the CPU computes, which decides about the kernels and the type of numbers of a model.

Nothing here is timed: two predictors on equal CPUs must choose the same kernels, or they would write different texts.
"""

from __future__ import annotations

import os
import platform

import torch

from predictor.cpu.kernel_variables import kernel_variables

PACKED_TYPES = (torch.float32, torch.bfloat16)
"""Of weights that are packed where the CPU has kernels for them."""

_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")
"""Names of torch.cpu.get_capabilities."""

_BFLOAT16_LEVELS = ("avx512_core_bf16", "avx512_core_fp16", "avx512_core_amx", "avx10", "all", "default")
"""Values of ONEDNN_MAX_CPU_ISA, or their beginnings, that let oneDNN use the CPU's bfloat16."""


def computes_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself, and oneDNN may use that.

    x86 only: Arm's bfloat16 has other kernels, which nobody has measured here.
    """
    return _onednn_level().startswith(_BFLOAT16_LEVELS) and bool({"avx512_bf16", "amx_bf16"}.intersection(_features()))


def multiplies_tiles() -> bool:
    """Whether oneDNN multiplies bfloat16 by the CPU's tiles (AMX)."""
    return _onednn_level().startswith(("avx512_core_amx", "avx10", "all", "default")) and "amx_bf16" in _features()


def computes_packed_float32() -> bool:
    """Whether oneDNN has its blocked kernels of float32 for this CPU: x86 with AVX2 or newer."""
    return "avx2" in _features()


def computes_packed(dtype: torch.dtype) -> bool:
    """Whether packed weights of this type have kernels for this CPU."""
    return dtype in PACKED_TYPES and (computes_bfloat16() if dtype == torch.bfloat16 else computes_packed_float32())


def description() -> list[object]:
    """What chooses the kernels of libraries on this CPU, as values of JSON."""
    return [platform.machine(), _features(), [*kernel_variables().values()]]


def _onednn_level() -> str:
    """The best instructions that oneDNN may use."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "all").lower()


def _features() -> list[str]:
    capabilities = torch.cpu.get_capabilities()
    return [name for name in _FEATURES if capabilities.get(name)]
