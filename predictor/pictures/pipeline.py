"""A diffusers text-to-image pipeline on its device: what it takes, and one run of it."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers.models import WordLevel

from contract.problems import FieldError, field_problem, invalid_field
from predictor.errors import ModelError
from predictor.loading.lean_imports import lean_imports
from predictor.loading.weights import placement

log = logging.getLogger(__name__)

_DEFAULTS_FILE = "generation_config.json"
"""Beside model_index.json: num_inference_steps and guidance_scale, where the pipeline's own are not the model's."""

_PARAMETERS = {"negative_prompt": "negative_prompt", "guidance": "guidance_scale", "steps": "num_inference_steps"}
"""Fields of a request that not every pipeline takes, and what diffusers calls them."""


@dataclass(frozen=True)
class DiffusionParameters:
    """Everything that decides how one picture looks. `seed` is the picture's own."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    guidance: float | None = None
    negative_prompt: str | None = None


class Pipeline:
    """`size`, the default width and height, has the most pixels that are served; sides are multiples of `multiple`."""

    def __init__(self, pipe: Any, defaults: dict[str, Any]) -> None:
        self.pipe = pipe
        self.name = type(pipe).__name__
        parameters = inspect.signature(pipe.__call__).parameters
        self._takes = {field for field, name in _PARAMETERS.items() if name in parameters}
        if not {"prompt", "width", "height"} <= parameters.keys() or any(
            name in parameters and parameters[name].default is inspect.Parameter.empty for name in ("image", "image_1")
        ):
            raise ModelError(f"{self.name} makes no pictures from text")
        if "callback_on_step_end" not in parameters:
            raise ModelError(f"{self.name} cannot be watched or stopped between two steps")
        self.denoiser: torch.nn.Module = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
        if self.denoiser is None:
            raise ModelError(f"{self.name} has neither a unet nor a transformer")
        # What a pipeline takes in order to leave it lying is not taken.
        if "true_cfg_scale" in parameters and (parameters["true_cfg_scale"].default or 1) <= 1:
            self._takes.discard("negative_prompt")
        if getattr(self.denoiser.config, "guidance_embeds", None) is False:
            self._takes.discard("guidance")
        processor = getattr(pipe, "image_processor", None)
        scale = int(getattr(pipe, "vae_scale_factor", 8))
        # Some pipelines round to these, some refuse the rest, most refuse what is no multiple of 8.
        factors = [8, int(processor.config.vae_scale_factor) if processor is not None else scale]
        self.multiple = math.lcm(*factors, scale * int(getattr(pipe, "patch_size", 1)))
        self.size = _default_size(pipe, self.denoiser, scale)
        self.steps = int(defaults.get("num_inference_steps") or parameters["num_inference_steps"].default)
        self.guidance: float | None = defaults.get("guidance_scale")

    @property
    def weight_bytes(self) -> int:
        """Of all models of the pipeline."""
        models = [part for part in self.pipe.components.values() if isinstance(part, torch.nn.Module)]
        return sum(p.numel() * p.element_size() for model in models for p in model.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def recipe(
        self,
        prompt: str,
        *,
        seed: int,
        size: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
    ) -> DiffusionParameters:
        """A request with the defaults filled in; a ProblemError that names fields which this pipeline does not take."""
        asked = {"negative_prompt": negative_prompt, "guidance": guidance, "steps": steps}
        refused = [field for field, value in asked.items() if value is not None and field not in self._takes]
        if refused:
            detail = f"{self.name} does not take this"
            raise field_problem([FieldError(field=field, detail=detail) for field in refused])
        width, height = map(int, size.split("x")) if size else self.size
        fits = width * height <= self.size[0] * self.size[1]
        if size and (width % self.multiple or height % self.multiple or not fits):
            raise invalid_field(
                "size",
                f"width and height must be multiples of {self.multiple} with at most "
                f"{self.size[0] * self.size[1]} pixels together, as {self.size[0]}x{self.size[1]} has",
            )
        guidance = self.guidance if guidance is None else guidance
        return DiffusionParameters(prompt, width, height, steps or self.steps, seed, guidance, negative_prompt)

    def understood(self, prompt: str) -> list[str] | None:
        """The words of `prompt` that the model knows; None when its tokenizer reads words in pieces, as most do."""
        tokenizer: Any = getattr(self.pipe, "tokenizer", None)
        if not isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), WordLevel):
            return None
        unknown = tokenizer.unk_token_id
        encoded = tokenizer(prompt, return_offsets_mapping=True, add_special_tokens=False, truncation=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [prompt[begin:end].strip() for token, (begin, end) in spans if token != unknown and end > begin]

    def run(self, recipe: DiffusionParameters, on_step: Callable[[int, torch.Tensor], None]) -> Image.Image:
        """The pipeline from beginning to end; `on_step` gets the number of steps done, out of those that were
        asked for, and the latents."""
        # Its own scheduler and its own attributes, for a pipeline keeps the state of a run in both.
        pipe = copy.copy(self.pipe)
        # Past diffusers' own setter, which looks whether it is compiled, and imports a compiler for that.
        object.__setattr__(pipe, "scheduler", copy.deepcopy(self.pipe.scheduler))
        extra: dict[str, Any] = {}
        if recipe.guidance is not None and "guidance" in self._takes:
            extra["guidance_scale"] = recipe.guidance
        if recipe.negative_prompt is not None:
            extra["negative_prompt"] = recipe.negative_prompt

        def step_ended(running: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            # Some schedulers take more steps than they are asked for.
            taken = max(int(getattr(running, "num_timesteps", None) or recipe.steps), step + 1)
            on_step((step + 1) * recipe.steps // taken, tensors["latents"])
            return tensors

        output = pipe(
            prompt=recipe.prompt,
            width=recipe.width,
            height=recipe.height,
            num_inference_steps=recipe.steps,
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
            callback_on_step_end=step_ended,
            output_type="pil",
            **extra,
        )
        picture: Image.Image = output.images[0]
        return picture

    def economize(self) -> bool:
        """Trade speed for memory: decode in tiles, then keep on the GPU only what computes. False when there is no more
        to be had."""
        vae = getattr(self.pipe, "vae", None)
        if vae is not None and hasattr(vae, "enable_tiling") and not getattr(vae, "use_tiling", True):
            vae.enable_tiling()
            return True
        if self.device.type == "cuda" and find_spec("accelerate") and not getattr(self.pipe, "_offloads", False):
            self.pipe.enable_model_cpu_offload()
            self.pipe._offloads = True
            return True
        return False


def load_pipeline(source: str, device: str, dtype: str, report: Callable[[str], None]) -> Pipeline:
    """Load from a folder or a hub id: safetensors only, no remote code. Raises ModelError with one line."""
    report("importing diffusers")
    with lean_imports():
        return _load(source, device, dtype, report)


def _load(source: str, device: str, dtype: str, report: Callable[[str], None]) -> Pipeline:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logs in (diffusers_logging, transformers_logging):
        logs.disable_progress_bar()
        if not log.isEnabledFor(logging.DEBUG):
            logs.set_verbosity_error()
            logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    report("loading the weights")
    try:
        loader: Any = DiffusionPipeline
        options = {"dtype": getattr(torch, dtype), "use_safetensors": True}
        models = _models(source, loader.load_config(source), {**options, **placement(device)})
        pipe = loader.from_pretrained(source, trust_remote_code=False, **options, **models)
        pipe.to(device)
        pipe.set_progress_bar_config(disable=True)
        return Pipeline(pipe, _defaults(source))
    except ModelError as error:
        raise ModelError(f"cannot load {source}: {error}") from error
    except Exception as error:
        log.debug("loading %s failed", source, exc_info=True)
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"cannot load {source}: {reason}") from error


def _models(source: str, index: dict[str, Any], options: dict[str, Any]) -> dict[str, torch.nn.Module]:
    """The models of a pipeline, each by itself: a pipeline does not tell which tensors it had to make up."""
    models: dict[str, torch.nn.Module] = {}
    for name, entry in index.items():
        library, kind = entry if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)
        if library not in ("diffusers", "transformers"):
            continue
        made = getattr(importlib.import_module(library), str(kind), None)
        if isinstance(made, type) and issubclass(made, torch.nn.Module):
            loader: Any = made
            models[name], info = loader.from_pretrained(source, subfolder=name, output_loading_info=True, **options)
            if info["missing_keys"]:
                missing = sorted(info["missing_keys"])
                raise ModelError(f"{len(missing)} tensors of its {name} are missing, {missing[0]} among them")
    return models


def _defaults(source: str) -> dict[str, Any]:
    path = Path(source) / _DEFAULTS_FILE
    defaults: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return defaults


def _default_size(pipe: Any, denoiser: Any, scale: int) -> tuple[int, int]:
    """Width and height. Pipelines fall back to the same numbers, each in its own way."""
    size = getattr(pipe, "default_sample_size", None) or denoiser.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return width * scale, height * scale
