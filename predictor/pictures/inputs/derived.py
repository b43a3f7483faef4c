"""The pipelines that begin with a picture, made of the modules of one that begins with noise.

diffusers' AutoPipelineForImage2Image and AutoPipelineForInpainting choose the class by its name. So is it done here, in
the one package that the pipeline is from: those two import all pipelines that there are, which takes 0.6 s and 30 MiB
at best. A test compares the choice with theirs.
"""

from __future__ import annotations

import inspect
import logging
import sys
from dataclasses import dataclass
from typing import Any, Literal

from predictor.errors import first_line

log = logging.getLogger(__name__)

Kind = Literal["Img2Img", "Inpaint"]

_PARAMETERS = {"prompt", "image", "strength", "generator", "num_inference_steps", "callback_on_step_end"}

_INPAINTED_CHANNELS = (4, 9)
"""Of the latents of a unet, and with those of a mask and a picture beside them: diffusers' pipelines take no others."""


@dataclass(frozen=True)
class DerivedPipeline:
    """`pipe` has the modules of the pipeline that it was made of, and `takes` these parameters."""

    pipe: Any
    takes: frozenset[str]
    strength: float
    """Where a request leaves it out."""


def derived_class(own: type, kind: Kind) -> Any:
    """The class of this kind beside the class of a pipeline; None where there is none that has a strength."""
    package = sys.modules.get(own.__module__.rpartition(".")[0])
    found = getattr(package, own.__name__.removesuffix("Pipeline") + kind + "Pipeline", None)
    if found is None:
        return None
    needed = _PARAMETERS | ({"mask_image"} if kind == "Inpaint" else set())
    return found if inspect.signature(found.__call__).parameters.keys() >= needed else None


def derived_pipeline(pipe: Any, kind: Kind) -> DerivedPipeline | None:
    """None where diffusers has no such pipeline, or where that does not take the modules of this one."""
    if kind == "Inpaint" and hasattr(pipe, "unet") and pipe.unet.config.in_channels not in _INPAINTED_CHANNELS:
        return None
    try:
        found = derived_class(type(pipe), kind)
        if found is None:
            return None
        parts = {**pipe.config, **pipe.components}  # the configuration has the names of their classes
        derived = found(**{part: parts[part] for part in inspect.signature(found).parameters if part in parts})
    except Exception as error:
        log.info("%s for %s: %s", kind, type(pipe).__name__, first_line(error))
        return None
    derived.set_progress_bar_config(disable=True)
    parameters = inspect.signature(found.__call__).parameters
    return DerivedPipeline(derived, frozenset(parameters), float(parameters["strength"].default))
