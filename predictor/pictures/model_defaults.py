"""Steps and guidance of a model where a request leaves them out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelDefaults:
    """None is the pipeline's own. `guidance` of 0 is none."""

    steps: int | None = None
    guidance: float | None = None

    def over(self, other: ModelDefaults) -> ModelDefaults:
        """These, and those of `other` where these say nothing."""
        guidance = other.guidance if self.guidance is None else self.guidance
        return ModelDefaults(self.steps or other.steps, guidance)


NO_DEFAULTS = ModelDefaults()

_NAMED = {
    "sd-turbo": ModelDefaults(4, 0),
    "sdxl-turbo": ModelDefaults(4, 0),
    "stable-diffusion-3.5-large-turbo": ModelDefaults(4, 0),
    "z-image-turbo": ModelDefaults(9, 0),
}
"""By the last part of a hub id, where nothing in the files says it for sure."""

_DISTILLED = {
    "Flux2KleinPipeline": ModelDefaults(4),
    "Krea2Pipeline": ModelDefaults(8, 0),
}
"""By pipelines that say of a model that it is distilled."""

_CONSISTENCY = ("LCMScheduler", "TCDScheduler")


def known_defaults(pipe: Any, source: str) -> ModelDefaults:
    """Of a distilled model, which makes burnt or blurred pictures with the steps and the guidance of the class that it
    shares with others. A line of the log says so, as some of it is told by signs."""
    found = _by_name(pipe, source) or _by_configuration(pipe)
    if found is None:
        return NO_DEFAULTS
    guidance = "" if found.guidance is None else f" and guidance {found.guidance:g}"
    log.info("%s is a model of few steps: %d steps%s unless asked for otherwise", source, found.steps, guidance)
    return found


def _by_name(pipe: Any, source: str) -> ModelDefaults | None:
    names = (source, str(pipe.config.get("_name_or_path", "")))
    return next((_NAMED[name] for name in (PurePath(each).name.lower() for each in names) if name in _NAMED), None)


def _by_configuration(pipe: Any) -> ModelDefaults | None:
    kind, scheduler = type(pipe).__name__, getattr(pipe, "scheduler", None)
    config = getattr(scheduler, "config", {})
    if pipe.config.get("is_distilled"):
        return _DISTILLED.get(kind)
    if type(scheduler).__name__ in _CONSISTENCY:
        # A model with guidance of its own, which is no second forward, keeps the class's.
        embedded = getattr(getattr(pipe, "unet", None), "config", {}).get("time_cond_proj_dim")
        return ModelDefaults(4, None if embedded else 0)
    if (
        kind == "FluxPipeline"
        and not pipe.transformer.config.guidance_embeds
        and not config.get("use_dynamic_shifting")
    ):
        return ModelDefaults(4)  # FLUX.1 schnell
    if kind == "ZImagePipeline" and config.get("shift") == 3.0:  # 6 in the model that it was distilled from
        return ModelDefaults(9, 0)
    if kind == "QwenImagePipeline" and config.get("base_shift") == config.get("max_shift"):  # Qwen-Image-Lightning
        return ModelDefaults(8, 1)
    if kind in ("StableDiffusionPipeline", "StableDiffusionXLPipeline") and _turbo(type(scheduler).__name__, config):
        return ModelDefaults(4, 0)
    return None


def _turbo(scheduler: str, config: Any) -> bool:
    """SD and SDXL Turbo and Lightning: their one to eight steps begin at pure noise. So do those of models with a
    terminal signal-to-noise ratio of zero, which predict the velocity."""
    return (
        scheduler in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
        and config.get("timestep_spacing") == "trailing"
        and config.get("prediction_type", "epsilon") in ("epsilon", "sample")
        and not config.get("rescale_betas_zero_snr")
    )


def most_steps(pipe: Any) -> int | None:
    """Of a schedule that only has so many to choose from."""
    scheduler: Any = getattr(pipe, "scheduler", None)
    if type(scheduler).__name__ not in _CONSISTENCY:
        return None
    most: int | None = scheduler.config.get("original_inference_steps")
    return most
