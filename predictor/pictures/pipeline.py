"""A text-to-image pipeline of diffusers: which parameters it takes, and one run of it."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, get_args

import torch
from PIL import Image
from tokenizers.models import WordLevel

from contract.limits import STEPS
from contract.models.description import FieldDefaults, ModelDescription, ModelLimits, Refusable
from contract.problems import FieldError, ProblemError, field_problem, invalid_field
from predictor.errors import ModelError
from predictor.loading.device_memory import free_host_memory, model_bytes
from predictor.pictures.decoder import Decoder, DecoderCall
from predictor.pictures.inputs.derived import DerivedPipeline, derived_pipeline
from predictor.pictures.model_defaults import ModelDefaults, most_steps
from predictor.pictures.parameters import DiffusionParameters, SourcePicture
from predictor.pictures.picture_sizes import sizes_of, written

log = logging.getLogger(__name__)

_VIDEO = {"num_frames", "frames", "video_length", "video", "control_video"}
_FROM_PICTURES = {"strength", "mask_image", "control_image", "controlnet_conditioning_scale"}
"""Parameters of pipelines that do not make one picture from a text."""

_NEEDS_PICTURES = re.compile("Edit|Refiner|Img2Img|I2I|Inpaint")
"""In names of pipelines that let a picture be left out, and fail without it all the same."""


class Pipeline:
    """`sizes` are those of its pictures. `defaults` are for requests that leave out steps or guidance; `size` and
    `max_pixels` are the deployment's, where it has set them. Raises ModelError for a pipeline that cannot be served.
    """

    def __init__(
        self, pipe: Any, defaults: ModelDefaults, size: str | None = None, max_pixels: int | None = None
    ) -> None:
        self.pipe = pipe
        self._from_picture = derived_pipeline(pipe, "Img2Img")
        self._inpainting = derived_pipeline(pipe, "Inpaint")
        self.decoder = Decoder(pipe)
        self._offloads_models = False
        self.name = type(pipe).__name__
        parameters = inspect.signature(pipe.__call__).parameters
        _check(pipe, parameters)
        self.denoiser: torch.nn.Module = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
        if self.denoiser is None:
            raise ModelError(f"{self.name} has neither a unet nor a transformer")
        self._own = {name: parameter.default for name, parameter in parameters.items()}
        # Qwen-Image and its kin have guidance by a second forward, under another name.
        second = self._own.get("true_cfg_scale") or 1
        other = "true_cfg_scale" in self._own and (second > 1 or "guidance_scale" not in self._own)
        self._guidance_name = "true_cfg_scale" if other else "guidance_scale"
        self._takes = self._taken()
        self._most_steps = most_steps(pipe)
        self._limited = max_pixels is not None
        self.sizes = sizes_of(pipe, self.denoiser, size, max_pixels)
        self.steps = int(defaults.steps or self._own["num_inference_steps"])
        self.guidance = defaults.guidance if "guidance" in self._takes else None

    @property
    def weight_bytes(self) -> int:
        """Bytes of all models of the pipeline."""
        return sum(map(model_bytes, self.models.values()))

    @property
    def facts(self) -> dict[str, object]:
        """What decides a picture beside the models and the request, as values of JSON."""
        scheduler = self.pipe.components.get("scheduler")
        return {
            "pipeline": self.name,
            "scheduler": None if scheduler is None else [type(scheduler).__name__, dict(scheduler.config)],
            "size": self.sizes.default,
            "steps": self.steps,
            "guidance": self.guidance,
        }

    @property
    def description(self) -> ModelDescription:
        """What requests may ask of it."""
        takes = {*self._takes, *(["image"] if self._from_picture else []), *(["mask"] if self._inpainting else [])}
        return ModelDescription(
            refuses=[field for field in get_args(Refusable) if field not in takes],
            limits=ModelLimits(steps=min(self._most_steps or STEPS, STEPS), size=self.sizes.limits),
            defaults=FieldDefaults(size=written(self.sizes.default), steps=self.steps, guidance=self.guidance),
        )

    @property
    def models(self) -> dict[str, torch.nn.Module]:
        """The parts that have weights, by their names in the pipeline."""
        parts = self.pipe.components
        return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def limit_to_default_size(self) -> bool:
        """Serve no larger pictures than of the default size. False where a deployment has said what the largest are."""
        default = math.prod(self.sizes.default)
        if self._limited or self.sizes.most_pixels <= default:
            return False
        self.sizes = self.sizes.up_to(default)
        return True

    def parameters(
        self,
        prompt: str,
        *,
        seed: int,
        size: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        source: SourcePicture | None = None,
        strength: float | None = None,
    ) -> DiffusionParameters:
        """A request with the defaults filled in; `size` is "WIDTHxHEIGHT", and that of `source` where there is one.

        Raises a ProblemError that names the fields which this pipeline does not take.
        """
        asked = {"negative_prompt": negative_prompt, "guidance": guidance, "steps": steps}
        refused = [field for field, value in asked.items() if value is not None and field not in self._takes]
        if refused:
            detail = f"{self.name} does not take this"
            raise field_problem([FieldError(field=field, detail=detail) for field in refused])
        if source:
            width, height = source.image.size
        else:
            width, height = self.sizes.read(size) if size else self.sizes.default
        guidance = self.guidance if guidance is None else guidance
        if self._guidance_name == "true_cfg_scale":
            guided = (self._own["true_cfg_scale"] if guidance is None else guidance) > 1
            if negative_prompt is not None and not guided:
                raise invalid_field("negative_prompt", f"{self.name} takes this with a guidance of more than 1 only")
            if guided and negative_prompt is None:
                negative_prompt = " "  # without one there is no guidance
        steps = steps or self.steps
        if self._most_steps and steps > self._most_steps:
            raise invalid_field("steps", f"the scheduler of this model has at most {self._most_steps}")
        if source:
            strength = self.from_source(masked=source.mask is not None).strength if strength is None else strength
            if int(steps * strength) < 1:
                least = math.ceil(1000 / steps) / 1000
                raise invalid_field("strength", f"must be at least {least:g} with {steps} steps, to take one of them")
        return DiffusionParameters(prompt, width, height, steps, seed, guidance, negative_prompt, source, strength)

    def from_source(self, *, masked: bool) -> DerivedPipeline:
        """The pipeline that begins with a picture, and a mask. Raises a ProblemError where there is none."""
        derived = self._inpainting if masked else self._from_picture
        if derived is None:
            does = "repaints no part of a picture" if masked else "begins with no picture"
            raise invalid_field("mask" if masked else "image", f"is not taken here: {self.name} {does}")
        return derived

    def check(self, defaults: ModelDefaults) -> None:
        """Raises ModelError where a deployment's defaults are not what this pipeline takes."""
        try:
            self.parameters("a", seed=0, steps=defaults.steps, guidance=defaults.guidance)
        except ProblemError as problem:
            raise ModelError(f"--{problem}") from None

    def understood(self, prompt: str) -> list[str] | None:
        """The words of `prompt` that the model knows. None when its tokenizer splits words into pieces, as most do."""
        tokenizer: Any = getattr(self.pipe, "tokenizer", None)
        if not isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), WordLevel):
            return None
        unknown = tokenizer.unk_token_id
        encoded = tokenizer(prompt, return_offsets_mapping=True, add_special_tokens=False, truncation=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [prompt[begin:end].strip() for token, (begin, end) in spans if token != unknown and end > begin]

    def run(
        self,
        parameters: DiffusionParameters,
        on_step: Callable[[int, torch.Tensor], None],
        decode: Callable[[DecoderCall], Any] | None = None,
    ) -> Image.Image:
        """The pipeline from beginning to end. `on_step` takes the number of steps done, of those that are taken,
        and the latents as the pipeline keeps them; `decode` is called in the place of its decoder."""

        told = parameters.taken_steps

        def step_ended(running: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            # Some schedulers, such as PNDM, take more steps than they are asked for.
            taken = max(int(getattr(running, "num_timesteps", None) or told), step + 1)
            on_step((step + 1) * told // taken, tensors["latents"])
            return tensors

        source = parameters.source
        derived = self.from_source(masked=source.mask is not None) if source else None
        pipe = _own_copy(derived.pipe if derived else self.pipe)
        if decode is not None:
            self.decoder.replace(pipe, decode)
        output = pipe(
            prompt=parameters.prompt,
            num_inference_steps=parameters.steps,
            generator=torch.Generator("cpu").manual_seed(parameters.seed),
            callback_on_step_end=step_ended,
            output_type="pil",
            **self._options(parameters, derived),
        )
        picture: Image.Image = output[0][0]  # called "images" by most, and "image" by Kandinsky 5
        return picture

    def reduce_memory(self) -> bool:
        """Trade speed for memory: keep on the GPU only the model that computes, and the others on the host. False where
        that is done already or cannot be."""
        can = self.device.type == "cuda" and find_spec("accelerate") and self.pipe.model_cpu_offload_seq
        if not can or self._offloads_models:
            return False
        left = free_host_memory()
        if self.weight_bytes > left:
            log.warning(
                "the models stay on the GPU: they have %.1f GiB, and the host has %.1f GiB left for them",
                self.weight_bytes / 2**30,
                left / 2**30,
            )
            return False
        self.pipe.enable_model_cpu_offload(device=self.device)
        self._offloads_models = True
        return True

    def _taken(self) -> set[str]:
        """Fields of a request that not every pipeline takes, without those that this one has and then ignores."""
        names = {"negative_prompt": "negative_prompt", "guidance": self._guidance_name, "steps": "num_inference_steps"}
        taken = {field for field, name in names.items() if name in self._own}
        if self._guidance_name == "guidance_scale":
            if (self._own.get("true_cfg_scale") or 2) <= 1:
                taken.discard("negative_prompt")
            # A distilled model, of a class that has no guidance but what the model has learned.
            learned = self.name.startswith("Flux") and not hasattr(type(self.pipe), "do_classifier_free_guidance")
            if learned and getattr(self.denoiser.config, "guidance_embeds", None) is False:
                taken.discard("guidance")
            if self.name == "Flux2KleinPipeline" and self.pipe.config.get("is_distilled"):
                taken.discard("guidance")
        return taken

    def _options(self, parameters: DiffusionParameters, derived: DerivedPipeline | None) -> dict[str, Any]:
        options: dict[str, Any] = {"width": parameters.width, "height": parameters.height}
        if parameters.guidance is not None and "guidance" in self._takes:
            options[self._guidance_name] = parameters.guidance
        if parameters.negative_prompt is not None:
            options["negative_prompt"] = parameters.negative_prompt
        if "use_resolution_binning" in self._own:  # of the size that was asked for, and not of the next that is known
            options["use_resolution_binning"] = False
        if "max_area" in self._own:  # FLUX.1 Kontext scales any size to it
            options["max_area"] = parameters.width * parameters.height
        if "intermediate_timesteps" in self._own and parameters.steps != 2:  # SANA Sprint has them for two steps only
            options["intermediate_timesteps"] = None
        source = parameters.source
        if derived is None or source is None:
            return options
        options |= {"image": source.image, "strength": parameters.strength, "mask_image": source.mask}
        return {name: value for name, value in options.items() if name in derived.takes}


def _own_copy(pipe: Any) -> Any:
    """A pipeline keeps the state of a run in its attributes, its scheduler and its guider: each run has its own."""
    own = copy.copy(pipe)
    for name in ("scheduler", "guider", "ocr_guider"):
        if hasattr(own, name):
            # Not by setattr: diffusers' own (0.42) imports a compiler to see whether the value is compiled.
            object.__setattr__(own, name, copy.deepcopy(getattr(own, name)))
    return own


def _check(pipe: Any, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raises ModelError where `pipe` is no pipeline that makes a picture from a text, one step after the other."""
    name, named = type(pipe).__name__, parameters.keys()
    if named & _VIDEO and "prompt" in named:
        raise ModelError(f"{name} makes videos, not pictures")
    needed = any("image" in each and parameters[each].default is inspect.Parameter.empty for each in named)
    if not {"prompt", "width", "height"} <= named or needed or named & _FROM_PICTURES or _NEEDS_PICTURES.search(name):
        raise ModelError(f"{name} makes no pictures from text")
    if "callback_on_step_end" not in named:
        raise ModelError(f"{name} cannot be watched or stopped between two steps")
    if any(hasattr(type(part), "components") for part in vars(pipe).values()):
        raise ModelError(f"{name} is several pipelines in one")
