"""What decides an answer beside the request, as one short name: OpenAI's `system_fingerprint`."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from predictor.cpu.features import description
from predictor.cpu.packed_linear import PackedLinear
from predictor.cpu.stored_embedding import StoredEmbedding
from predictor.cpu.threads import most_threads
from predictor.imports.package_version import package_version

_PACKAGES = ("shangcai", "torch", "transformers", "tokenizers", "diffusers")

SAMPLES = 8
"""Numbers of each tensor that stand for all of its weights: training changes them all, and reading all takes long."""


def fingerprint(models: Mapping[str, torch.nn.Module], **facts: object) -> str:
    """The same for the same weights, types, kernels, libraries, device and `facts`, which are values of JSON.

    Two servers of the same fingerprint give the same answer to the same seed, as far as docs/models.md says.
    """
    parts = {
        "versions": {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}},
        "device": _device(next(model for model in models.values() if any(True for _ in model.parameters()))),
        "models": {name: _model(model) for name, model in sorted(models.items())},
        **facts,
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _device(model: torch.nn.Module) -> list[object]:
    """Its type, and what chooses the kernels there. How work is split among threads decides how a CPU rounds."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return ["cuda", name, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    threads = [torch.get_num_threads(), most_threads()]
    return [device.type, torch.backends.cpu.get_cpu_capability(), *threads, *description()]


def _model(model: torch.nn.Module) -> list[object]:
    config = getattr(model, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    kinds = sorted({type(module).__qualname__ for module in model.modules()})
    weights = [
        (name, str(tensor.dtype), list(tensor.shape), _samples(tensor)) for name, tensor in model.named_parameters()
    ]
    for name, part in model.named_modules():
        if isinstance(part, PackedLinear):
            tensor = part.packed_weight
            weights.append((name, str(tensor.dtype), list(tensor.shape), part.first_weights))
        elif isinstance(part, StoredEmbedding):
            weights.append((name, str(part.table.dtype), list(part.table.shape), _samples(part.table)))
    return [attention, kinds, weights, _written(config)]


def _written(config: Any) -> dict[str, Any]:
    """The config of a model of transformers or diffusers, without where it came from."""
    if config is None:
        return {}
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {name: value for name, value in values.items() if not name.startswith("_")}


def _samples(tensor: torch.Tensor) -> list[float] | None:
    """The first numbers of the first row. None where a quantized type has no rows, or they lie elsewhere."""
    row: Any = tensor.detach()
    try:
        while row.dim() > 1:
            row = row[0]
        values: list[float] = row.reshape(-1)[:SAMPLES].float().tolist()
    except (RuntimeError, NotImplementedError, TypeError, IndexError):
        return None
    return values
