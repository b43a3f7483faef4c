"""Which device a model is served on, and in which type of numbers."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from predictor.cpu.number_types import prefers_bfloat16
from predictor.errors import ModelError, first_line

log = logging.getLogger(__name__)

_LEAST_DRIVER = {"11": "450", "12": "525", "13": "580"}
"""The oldest NVIDIA driver that runs programs of each major version of CUDA, from NVIDIA's release notes."""


def choose_device(asked: str, root: Path = Path("/")) -> str:
    """The torch device for `asked`; "auto" is CUDA where it can be used, and the CPU elsewhere.

    Raises ModelError with one line when it cannot be used: a pod that was given a GPU must not serve on its CPU.
    """
    if asked == "auto":
        obstacle = _cuda_obstacle(root)
        if obstacle and any((root / "dev").glob("nvidia[0-9]*")):
            log.warning(
                "the CPU is served on although there is an NVIDIA device, because CUDA cannot be used: %s", obstacle
            )
        return "cpu" if obstacle else "cuda"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ModelError(f"there is no device {asked!r}: {first_line(error)}") from error
    if device.type == "cuda":
        if obstacle := _cuda_obstacle(root):
            raise ModelError(f"the device {asked} cannot be used: {obstacle}")
        if (count := torch.cuda.device_count()) <= (device.index or 0):
            raise ModelError(f"there is no device {asked}: torch sees {count}, the last of them cuda:{count - 1}")
    return "cpu" if device.type == "cpu" else str(device)


def choose_dtype(asked: str, stored: str | None, device: str, has_bfloat16: bool) -> str:
    """The name of a language model's torch dtype; "auto" is the checkpoint's own, which `stored` is if known.
    `has_bfloat16`: whether bfloat16 is quicker than float32."""
    if asked != "auto":
        return asked
    if device == "cpu":  # other checkpoints would be rounded
        return "bfloat16" if stored == "bfloat16" and has_bfloat16 else "float32"
    # A GPU computes it many times faster, in half the memory, and with the same range of numbers.
    return "bfloat16" if stored == "float32" and has_bfloat16 else "auto"


def served_dtype(asked: str, stored: torch.dtype | None, device: str, config: Any) -> str:
    """`choose_dtype` for this machine and a model with this config, of transformers; told in the log where it differs
    from machine to machine."""
    name = None if stored is None else str(stored).removeprefix("torch.")
    on_cuda = device.startswith("cuda")
    chosen = choose_dtype(asked, name, device, _has_bfloat16(device) if on_cuda else prefers_bfloat16(config))
    if asked == "auto" and device == "cpu" and name == chosen == "bfloat16":
        log.info("a bfloat16 checkpoint is served in bfloat16, which this CPU computes; --dtype float32 takes longer")
    if asked == "auto" and on_cuda and name == "float32":
        if chosen == "bfloat16":
            log.info("a float32 checkpoint is served in bfloat16, which %s computes; --dtype float32 keeps it", device)
        else:
            log.info("a float32 checkpoint is served in float32, because %s does not compute bfloat16", device)
    return chosen


def _has_bfloat16(device: str) -> bool:
    """Whether it is computed, and not emulated: NVIDIA's since Ampere, and all of AMD's that torch knows."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def _cuda_obstacle(root: Path) -> str | None:
    """Why CUDA cannot be used, in one line; None where it can."""
    with warnings.catch_warnings():  # torch warns in several lines of what is told here in one
        warnings.simplefilter("ignore")
        if torch.cuda.is_available():
            return None
        if torch.version.cuda is None:
            return f"torch {torch.__version__} is built without it; install a build that has it"
        least = _LEAST_DRIVER.get(torch.version.cuda.partition(".")[0])
        wanted = f"torch {torch.__version__} needs CUDA {torch.version.cuda}" + (
            f", and so an NVIDIA driver {least} or newer" if least else ""
        )
        driver = _driver_version(root)
        if driver is None:
            return f"there is no NVIDIA driver here; {wanted}"
        try:
            torch.cuda.init()
            said = "no device"
        except Exception as error:
            said = first_line(error)
    return f"{wanted}; here is driver {driver} ({said})"


def _driver_version(root: Path) -> str | None:
    """Of NVIDIA's kernel module, as in 535.104.05; containers see it, too."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"\s(\d{3,}\.[\d.]+)\s", text)
    return found[1] if found else "of unknown version"
