"""Quantized weights: of a checkpoint that is quantized already, and by `--quantize` while they are loaded.

Each method wants packages, kernels or devices of its own. transformers knows which, and says so once it has fetched the
weights; a method that it does not know it skips, and serves noise. Here that is found out from the config.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from predictor.errors import ModelError
from predictor.loading.weights import placement
from predictor.plan_settings import Quantization

log = logging.getLogger(__name__)

GROUP_SIZE = 64
"""Weights of a row that share a scale in int4: fewer are more exact and take more memory, here 4.5 bits at least."""

_ADVICE = "install that, or take the model's plain checkpoint"

_MODEL_OPT = "hf_quant_config.json"
"""By which NVIDIA's ModelOpt says that it has quantized a checkpoint whose config does not."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How weights are read: `plain` as they are, or by transformers with these `options`. They are `kept` quantized, or
    are numbers as in any other model once they are read."""

    plain: bool = True
    kept: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def weight_format(
    source: str, revision: str | None, config: Any, device: str, dtype: str, quantize: Quantization | None
) -> WeightFormat:
    """As what the weights of a checkpoint can be read and run on `device`; `dtype` and `quantize` as in EngineSettings.

    May change `config`, of transformers. Raises ModelError with one line that says what is missing.
    """
    stored = quantization_of(config)
    if stored is None:
        if _holds(source, revision, _MODEL_OPT):
            raise ModelError(_unknown("modelopt"))
        return WeightFormat() if quantize is None else _quantizing(quantize, device, dtype)
    if quantize is not None:
        raise ModelError("its weights are quantized already: leave --quantize out")
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

    # transformers can dequantize these, and misses their kernels only when it computes with them.
    if stored.get("quant_method") in ("fp8", "mxfp8", "mxfp4") and (device == "cpu" or not _compiles_kernels()):
        stored["dequantize"] = True
    checked = check_stored(stored, "its weights", AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer, device)
    dequantizes = bool(getattr(checked, "dequantize", False))
    if dequantizes:
        method = stored.get("quant_method")
        log.info("its %s weights are dequantized, and take as much memory as a plain checkpoint's", method)
    else:
        _check_placement(device)
    return WeightFormat(plain=False, kept=not dequantizes)


def check_stored(stored: dict[str, Any], what: str, methods: Collection[str], quantizers: Any, device: str) -> Any:
    """The quantization config that a library makes of `stored`; `methods` and `quantizers` are the library's.

    Raises ModelError, about `what`, when the library does not know the method, or something for it is missing here.
    """
    bitsandbytes = stored.get("load_in_8bit") or stored.get("load_in_4bit")
    method = "bitsandbytes" if bitsandbytes else str(stored.get("quant_method") or "an unknown method")
    if not bitsandbytes and method not in methods:
        raise ModelError(_unknown(method, what))
    try:
        quantizer = quantizers.from_config(dict(stored), pre_quantized=True)
        quantizer.validate_environment(weights_only=True, **({"device_map": None} | placement(device)))
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(f"{what} are quantized by {method}: {reason}; {_ADVICE}") from error
    return quantizer.quantization_config


def quantization_of(config: Any) -> dict[str, Any] | None:
    """How the config of a checkpoint says that its weights are quantized; None when they are not."""
    for part in (config, config.get_text_config()):
        for name in ("quantization_config", "quantization"):  # MLX writes the latter
            stored: dict[str, Any] | None = getattr(part, name, None)
            if stored:
                return stored
    return None


def _unknown(method: str, what: str = "its weights") -> str:
    return f"{what} are quantized by {method}, which is not read here; take the model's plain checkpoint"


def _holds(source: str, revision: str | None, name: str) -> bool:
    from transformers.utils.hub import cached_file

    if Path(source).is_dir():
        return (Path(source) / name).is_file()
    quietly = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(source, name, revision=revision, **quietly) is not None


def _compiles_kernels() -> bool:
    """Whether there is what the kernels of fp8 and MXFP4 are fetched and compiled with."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    return compiler is not None and all(map(find_spec, ("kernels", "triton")))


def _quantizing(scheme: Quantization, device: str, dtype: str) -> WeightFormat:
    """The weights of linear layers become integers while they are loaded, by torchao."""
    if find_spec("torchao") is None:
        raise ModelError(f"--quantize {scheme} needs the package torchao: pip install 'shangcai[quantize]'")
    _check_placement(device)
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers.utils.quantization_config import TorchAoConfig

    made: Any
    options: dict[str, Any] = {}
    if scheme == "int8":
        made = Int8WeightOnlyConfig(set_inductor_config=False)
    elif device == "cpu":
        from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig

        made = PrototypeInt4WeightOnlyConfig(group_size=GROUP_SIZE, set_inductor_config=False)
    else:  # torch's own kernels; those of torchao are for some GPUs, and want another package
        if dtype not in ("auto", "bfloat16"):
            raise ModelError(f"--quantize int4 on a GPU computes in bfloat16, and not in {dtype}")
        options["dtype"] = "bfloat16"
        made = Int4WeightOnlyConfig(
            group_size=GROUP_SIZE, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    return WeightFormat(plain=False, kept=True, options={**options, "quantization_config": TorchAoConfig(made)})


def _check_placement(device: str) -> None:
    """Quantized weights are not moved once they are read: transformers must put them where they are to lie."""
    if device != "cpu" and not placement(device):
        raise ModelError("quantized weights on a GPU need the package accelerate: pip install 'shangcai[gpu]'")


def refuse_for_pictures(quantize: Quantization | None) -> None:
    """Raise ModelError where a pipeline is to be quantized."""
    if quantize is not None:
        raise ModelError(f"--quantize {quantize} is for texts, and this model makes pictures: leave it out")
