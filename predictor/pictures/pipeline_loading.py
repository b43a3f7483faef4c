"""From safetensors files to a Pipeline on its device."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from predictor.cpu.group_norm import widen_group_norms
from predictor.cpu.packed_convolution import pack_convolutions
from predictor.cpu.packed_linear import pack_linear_layers
from predictor.cpu.threads import limit_threads
from predictor.errors import ModelError, first_line
from predictor.imports.lean_imports import lean_imports, lean_picture_imports
from predictor.loading.device import choose_device
from predictor.loading.quantization import check_stored
from predictor.loading.weights import placement
from predictor.pictures.model_defaults import NO_DEFAULTS, ModelDefaults, known_defaults
from predictor.pictures.pipeline import Pipeline

log = logging.getLogger(__name__)

_DEFAULTS_FILE = "generation_config.json"
"""Beside model_index.json: num_inference_steps and guidance_scale, where the pipeline's own are not the model's."""


def load_pipeline(
    source: str,
    device: str,
    dtype: str,
    report: Callable[[str], None],
    *,
    revision: str | None = None,
    defaults: ModelDefaults = NO_DEFAULTS,
    size: str | None = None,
    max_pixels: int | None = None,
    pack_weights: bool = True,
) -> Pipeline:
    """Load from a folder, or from a hub id at `revision`: safetensors only, no remote code. Raises ModelError with one
    line.

    `device`, `dtype`, `size`, `max_pixels` and `pack_weights` are as in EngineSettings; `defaults` come before the
    model's own. `report` takes the name of each phase as it begins.
    """
    limit_threads()
    report("importing diffusers")
    with lean_imports(), lean_picture_imports():
        try:
            pipe = _load(source, revision, device, dtype, report, pack_weights)
            of_model = _read_defaults(source, revision).over(known_defaults(pipe, source))
            pipeline = Pipeline(pipe, defaults.over(of_model), size, max_pixels)
            pipeline.check(defaults)
            return pipeline
        except ModelError as error:
            raise ModelError(f"cannot load {source}: {error}") from error
        except Exception as error:
            log.debug("loading %s failed", source, exc_info=True)
            raise ModelError(f"cannot load {source}: {first_line(error)}") from error


def _load(
    source: str, revision: str | None, device: str, dtype: str, report: Callable[[str], None], pack_weights: bool
) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logs in (diffusers_logging, transformers_logging):
        logs.disable_progress_bar()
        if not log.isEnabledFor(logging.DEBUG):
            logs.set_verbosity_error()
            logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    device = choose_device(device)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    report("loading the weights")
    loader: Any = DiffusionPipeline
    options = {"revision": revision, "dtype": getattr(torch, dtype), "use_safetensors": True}
    classes = _model_classes(loader.load_config(source, revision=revision))
    for name, model_class in classes.items():
        _check_quantization(source, revision, name, model_class, device)
    models = _load_models(source, classes, {**options, **placement(device)})
    pipe = loader.from_pretrained(source, trust_remote_code=False, **options, **models)
    pipe.to(device)
    for model in models.values() if pack_weights else ():
        pack_linear_layers(model)
        if pack_convolutions(model):
            widen_group_norms(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _model_classes(index: dict[str, Any]) -> dict[str, Any]:
    """The classes of a pipeline's models, as its index names them."""
    classes: dict[str, Any] = {}
    for name, entry in index.items():
        library, kind = entry if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)
        if library not in ("diffusers", "transformers"):
            continue
        model_class = getattr(importlib.import_module(library), str(kind), None)
        if isinstance(model_class, type) and issubclass(model_class, torch.nn.Module):
            classes[name] = model_class
    return classes


def _check_quantization(source: str, revision: str | None, name: str, model_class: Any, device: str) -> None:
    """Raise ModelError when the weights of a model are quantized by what is not installed: before any are read."""
    stored = _read_json(source, revision, "config.json", name).get("quantization_config")
    if not stored:
        return
    if model_class.__module__.startswith("diffusers."):
        from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, DiffusersAutoQuantizer

        methods, quantizers = AUTO_QUANTIZATION_CONFIG_MAPPING, DiffusersAutoQuantizer
    else:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

        methods, quantizers = AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer
    check_stored(stored, f"the weights of its {name}", methods, quantizers, device)


def _load_models(source: str, classes: dict[str, Any], options: dict[str, Any]) -> dict[str, torch.nn.Module]:
    """The models of a pipeline, each loaded by itself: a pipeline does not say which tensors it filled at random."""
    models: dict[str, torch.nn.Module] = {}
    for name, model_class in classes.items():
        with _without_accelerate(name, model_class, options["dtype"]):
            models[name], info = model_class.from_pretrained(
                source, subfolder=name, output_loading_info=True, **options
            )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ModelError(f"{len(missing)} tensors of its {name} are missing, {missing[0]} among them")
    return models


@contextlib.contextmanager
def _without_accelerate(name: str, model_class: Any, dtype: torch.dtype) -> Iterator[None]:
    """diffusers (0.42) refuses models that keep parts in float32 where accelerate is not installed, even if all of the
    model is to be float32. Raises ModelError where it is not."""
    kept = getattr(model_class, "_keep_in_fp32_modules", None)
    if not kept or not model_class.__module__.startswith("diffusers.") or find_spec("accelerate"):
        yield
        return
    if dtype != torch.float32:
        raise ModelError(
            f"its {name} keeps parts in float32, which needs the package accelerate: pip install 'shangcai[gpu]'"
        )
    model_class._keep_in_fp32_modules = None
    try:
        yield
    finally:
        model_class._keep_in_fp32_modules = kept


def _read_defaults(source: str, revision: str | None) -> ModelDefaults:
    file = _read_json(source, revision, _DEFAULTS_FILE)
    return ModelDefaults(file.get("num_inference_steps"), file.get("guidance_scale"))


def _read_json(source: str, revision: str | None, name: str, folder: str = "") -> dict[str, Any]:
    """A file of the model; empty where it has none of this name."""
    from transformers.utils.hub import cached_file

    path = cached_file(source, name, subfolder=folder, revision=revision, _raise_exceptions_for_missing_entries=False)
    read: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
    return read
