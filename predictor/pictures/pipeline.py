"""A text-to-image pipeline of diffusers: which parameters it takes, and one run of it."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from PIL import Image
from tokenizers.models import WordLevel

from contract.problems import FieldError, field_problem, invalid_field
from predictor.errors import ModelError
from predictor.pictures.parameters import DiffusionParameters

_PARAMETER_NAMES = {"negative_prompt": "negative_prompt", "guidance": "guidance_scale", "steps": "num_inference_steps"}
"""Fields of a request that not every pipeline takes, and what diffusers calls them."""


class Pipeline:
    """`size` is the default width and height, and the most pixels that are served; sides are multiples of `multiple`.

    `defaults` are those of the model, where the pipeline's own are not. Raises ModelError for a pipeline that cannot be
    served.
    """

    def __init__(self, pipe: Any, defaults: dict[str, Any]) -> None:
        self.pipe = pipe
        self._offloads_models = False
        self.name = type(pipe).__name__
        parameters = inspect.signature(pipe.__call__).parameters
        self._takes = {field for field, name in _PARAMETER_NAMES.items() if name in parameters}
        if not {"prompt", "width", "height"} <= parameters.keys() or any(
            name in parameters and parameters[name].default is inspect.Parameter.empty for name in ("image", "image_1")
        ):
            raise ModelError(f"{self.name} makes no pictures from text")
        if "callback_on_step_end" not in parameters:
            raise ModelError(f"{self.name} cannot be watched or stopped between two steps")
        self.denoiser: torch.nn.Module = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
        if self.denoiser is None:
            raise ModelError(f"{self.name} has neither a unet nor a transformer")
        # Parameters that a pipeline has and then ignores.
        if "true_cfg_scale" in parameters and (parameters["true_cfg_scale"].default or 1) <= 1:
            self._takes.discard("negative_prompt")
        if getattr(self.denoiser.config, "guidance_embeds", None) is False:
            self._takes.discard("guidance")
        processor = getattr(pipe, "image_processor", None)
        scale = int(getattr(pipe, "vae_scale_factor", 8))
        # Some pipelines round to a multiple of these, some refuse other sizes, and most refuse all but multiples of 8.
        factors = [8, int(processor.config.vae_scale_factor) if processor is not None else scale]
        self.multiple = math.lcm(*factors, scale * int(getattr(pipe, "patch_size", 1)))
        self.size = _default_size(pipe, self.denoiser, scale)
        self.steps = int(defaults.get("num_inference_steps") or parameters["num_inference_steps"].default)
        self.guidance: float | None = defaults.get("guidance_scale")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all models of the pipeline."""
        models = [part for part in self.pipe.components.values() if isinstance(part, torch.nn.Module)]
        return sum(p.numel() * p.element_size() for model in models for p in model.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def parameters(
        self,
        prompt: str,
        *,
        seed: int,
        size: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
    ) -> DiffusionParameters:
        """A request with the defaults filled in; `size` is "WIDTHxHEIGHT".

        Raises a ProblemError that names the fields which this pipeline does not take.
        """
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
        """The words of `prompt` that the model knows. None when its tokenizer splits words into pieces, as most do."""
        tokenizer: Any = getattr(self.pipe, "tokenizer", None)
        if not isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), WordLevel):
            return None
        unknown = tokenizer.unk_token_id
        encoded = tokenizer(prompt, return_offsets_mapping=True, add_special_tokens=False, truncation=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [prompt[begin:end].strip() for token, (begin, end) in spans if token != unknown and end > begin]

    def run(self, parameters: DiffusionParameters, on_step: Callable[[int, torch.Tensor], None]) -> Image.Image:
        """The pipeline from beginning to end. `on_step` takes the number of steps done, of those that were asked for,
        and the latents as the pipeline keeps them."""
        # A pipeline keeps the state of a run in its attributes and in its scheduler: each run has its own.
        pipe = copy.copy(self.pipe)
        # Not by setattr: diffusers' own (0.42) imports a compiler to see whether the value is compiled.
        object.__setattr__(pipe, "scheduler", copy.deepcopy(self.pipe.scheduler))
        extra: dict[str, Any] = {}
        if parameters.guidance is not None and "guidance" in self._takes:
            extra["guidance_scale"] = parameters.guidance
        if parameters.negative_prompt is not None:
            extra["negative_prompt"] = parameters.negative_prompt

        def step_ended(running: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            # Some schedulers, such as PNDM, take more steps than they are asked for.
            taken = max(int(getattr(running, "num_timesteps", None) or parameters.steps), step + 1)
            on_step((step + 1) * parameters.steps // taken, tensors["latents"])
            return tensors

        output = pipe(
            prompt=parameters.prompt,
            width=parameters.width,
            height=parameters.height,
            num_inference_steps=parameters.steps,
            generator=torch.Generator("cpu").manual_seed(parameters.seed),
            callback_on_step_end=step_ended,
            output_type="pil",
            **extra,
        )
        picture: Image.Image = output.images[0]
        return picture

    def reduce_memory(self) -> bool:
        """Trade speed for memory: first decode in tiles, then keep on the GPU only the model that computes. False when
        both are done."""
        vae = getattr(self.pipe, "vae", None)
        if vae is not None and hasattr(vae, "enable_tiling") and not getattr(vae, "use_tiling", True):
            vae.enable_tiling()
            return True
        if self.device.type == "cuda" and find_spec("accelerate") and not self._offloads_models:
            self.pipe.enable_model_cpu_offload()
            self._offloads_models = True
            return True
        return False


def _default_size(pipe: Any, denoiser: Any, scale: int) -> tuple[int, int]:
    """Width and height, as the pipelines themselves compute them."""
    size = getattr(pipe, "default_sample_size", None) or denoiser.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return width * scale, height * scale
