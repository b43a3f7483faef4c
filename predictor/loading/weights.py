"""Reads weights from safetensors files to a device.

transformers maps the files and copies one tensor after the other to the device. With accelerate it does so directly to
a GPU; without, the whole model is in the host's memory first. From a network volume it is quicker to read with many
threads, as Run:ai's Model Streamer does. fastsafetensors reads whole files, with GPUDirect Storage where there is some.
For a GPU one of them is used when it is installed; the setting `load_format` chooses another, to compare.

They put all tensors on the device before the model is made of them. transformers makes some models of other tensors
than the files hold: of all experts of a layer it makes one. Both would be on the device at once, so there it reads the
tensors itself, one after the other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictor.errors import ModelError
from predictor.imports.lean_imports import TESTED
from predictor.plan_settings import LoadFormat

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_PACKAGES: dict[LoadFormat, str] = {"runai_streamer": "runai_model_streamer", "fastsafetensors": "fastsafetensors"}


def placement(device: str) -> dict[str, dict[str, str]]:
    """Arguments of from_pretrained that load tensors directly to a GPU; empty for a CPU or without accelerate."""
    return {"device_map": {"": device}} if device != "cpu" and find_spec("accelerate") else {}


def read_weights(
    source: str, device: str, load_format: LoadFormat, config: Any = None
) -> dict[str, torch.Tensor] | None:
    """All tensors of the model on `device`, by name; None when transformers should read them itself. `config` is the
    model's, of transformers.

    Raises ModelError when `load_format` needs a package that is not installed, or a folder.
    """
    if load_format == "auto" and placement(device) and Path(source).is_dir():
        load_format = next((name for name, package in _PACKAGES.items() if find_spec(package)), load_format)
    if load_format not in _PACKAGES:
        return None
    package = _PACKAGES[load_format]
    if find_spec(package) is None:
        raise ModelError(f"the load format {load_format} needs the package {package.replace('_', '-')}")
    if not Path(source).is_dir():
        raise ModelError(f"the load format {load_format} reads from a folder, not from a hub")
    if config is not None and merges_tensors(config):
        log.info("transformers reads the weights, and not %s: it merges tensors of this model on the way", load_format)
        return None
    read = _streamed if load_format == "runai_streamer" else _fast
    return read(_files(Path(source)), device)


def merges_tensors(config: Any) -> bool:
    """Whether transformers makes tensors of this model from several of its files', instead of only renaming them."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    names = {config.model_type, config.get_text_config().model_type, *(config.architectures or ())}
    return any(
        isinstance(one, WeightConverter) for name in names for one in get_checkpoint_conversion_mapping(name) or ()
    )


@contextmanager
def stored_types() -> Iterator[None]:
    """In here from_pretrained leaves the tensors of a file in their own types, and mapped, while the model is made in
    the type that is asked for: in which it computes constants. Nothing is changed with an untested transformers."""
    from transformers.modeling_utils import PreTrainedModel

    if not version("transformers").startswith(f"{TESTED['transformers']}."):
        yield
        return
    original = PreTrainedModel._get_dtype_plan
    PreTrainedModel._get_dtype_plan = lambda _model, _dtype: {"*": None}  # of all tensors: convert to nothing
    try:
        yield
    finally:
        PreTrainedModel._get_dtype_plan = original


def _files(folder: Path) -> list[str]:
    """The files that the index names, or all without one: a folder may hold other precisions, too."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    return [str(folder / name) for name in names]


def _streamed(files: list[str], device: str) -> dict[str, torch.Tensor]:
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files)
        # A copy, because the streamer reuses its buffer.
        return {name: tensor.to(device, copy=True) for name, tensor in streamer.get_tensors()}


def _fast(files: list[str], device: str) -> dict[str, torch.Tensor]:
    from fastsafetensors import fastsafe_open

    with fastsafe_open(filenames=files, nogds=device == "cpu", device=device) as opened:
        return {name: opened.get_tensor(name).clone().detach() for name in opened.keys()}  # noqa: SIM118  it is no dict
