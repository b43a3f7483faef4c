"""Environment variables by which libraries choose other kernels than the CPU's best. Imports none of these."""

from __future__ import annotations

import os

KERNEL_VARIABLES = (
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
)


def kernel_variables() -> dict[str, str | None]:
    """Each with its value; None where it is not set."""
    return {name: os.environ.get(name) for name in KERNEL_VARIABLES}
