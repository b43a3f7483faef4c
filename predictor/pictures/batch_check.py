"""Whether pictures of a pipeline come out the same when their calls of the denoiser share forwards.

Which argument of a denoiser has the rows, and in which dimension, is told by its shape: a pipeline that nobody has seen
yet may have one that only looks as if it had.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch

from predictor.engine.memory.memory_pressure import device_failure
from predictor.errors import first_line
from predictor.measurements.cache import NOWHERE, MeasurementCache
from predictor.measurements.key import measurement_key
from predictor.measurements.records import PictureVerdict
from predictor.pictures.batch import PictureBatch, PictureRow
from predictor.pictures.pipeline import Pipeline

log = logging.getLogger(__name__)

COMPARED = {
    "Flux2KleinPipeline",
    "FluxPipeline",
    "Kandinsky5T2IPipeline",
    "Krea2Pipeline",
    "Lumina2Pipeline",
    "QwenImagePipeline",
    "SanaSprintPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "ZImagePipeline",
}
"""Pipelines whose pictures the tests compare: a start need not."""

SIDE = 64
"""Least pixels of a side of the pictures that are compared; their size does not matter."""

EXACT, ROUNDED = 0.01, 0.05
"""How far latents may be from those alone, relative to their norm: in float32, and in shorter types."""


def most_together(pipeline: Pipeline, most: int, cache: MeasurementCache = NOWHERE) -> int:
    """`most`, or 1 where pictures must not be computed together; the log says why. Raises what the device raises."""
    if most == 1 or pipeline.name in COMPARED:
        return most
    key = measurement_key(pipeline.models, **pipeline.facts)
    verdict = cache.find(PictureVerdict, key)
    if verdict is None:
        verdict = PictureVerdict(obstacle=_why_not_together(pipeline))
        cache.keep(verdict, key)
    if verdict.obstacle is None:
        return most
    log.warning("%s makes one picture at a time: %s", pipeline.name, verdict.obstacle)
    return 1


def _why_not_together(pipeline: Pipeline) -> str | None:
    if hasattr(pipeline.pipe, "set_pag_applied_layers"):
        return "its perturbed attention changes the denoiser while a picture is made"
    try:
        off = _distance(pipeline)
    except Exception as error:
        if device_failure(error):
            raise
        log.debug("the check of the batch failed", exc_info=True)
        return f"in a forward with others, {first_line(error)}"
    if off <= (EXACT if pipeline.denoiser.dtype == torch.float32 else ROUNDED):
        return None
    return f"in a forward with others, latents are off by {off:.0%}"


def step_of_trial(batch: PictureBatch) -> list[PictureRow]:
    """The rows that are finished by a step. Raises what one of them failed with."""
    ended = batch.step()
    for row in ended:
        if row.failure is not None:
            raise row.failure
    return ended


def _distance(pipeline: Pipeline) -> float:
    """How far the latents of pictures beside one of the same prompt, and one of a longer, are from those alone."""
    pictures = [("a", 1), ("a", 2), ("a " * 40, 3)]
    alone = [_first_step(pipeline, [picture])[0] for picture in pictures]
    together = _first_step(pipeline, pictures)
    return max(
        float((one - other).norm() / other.norm().clamp(min=1e-6)) for one, other in zip(together, alone, strict=True)
    )


def _first_step(pipeline: Pipeline, pictures: list[tuple[str, int]]) -> list[torch.Tensor]:
    """The latents of (prompt, seed) after one step of two."""
    width, height = pipeline.sizes.default
    if not pipeline.sizes.only:
        width = height = -(-SIDE // pipeline.sizes.multiple) * pipeline.sizes.multiple
    seen: list[list[torch.Tensor]] = [[] for _ in pictures]

    def keep(latents: list[torch.Tensor]) -> Callable[[int, torch.Tensor], None]:
        return lambda _step, now: latents.append(now.float().cpu())

    batch = PictureBatch(pipeline, len(pictures))
    try:
        for (prompt, seed), latents in zip(pictures, seen, strict=True):
            parameters = replace(pipeline.parameters(prompt, seed=seed, steps=2), width=width, height=height)
            batch.join(PictureRow(parameters, keep(latents)))
        while not all(seen):
            step_of_trial(batch)
    finally:
        batch.close()
    return [latents[0] for latents in seen]
