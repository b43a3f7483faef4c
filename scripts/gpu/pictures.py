"""Denoising steps a second by the number of pictures at once, and a decoder that runs out of memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from contract.request import Painting
from predictor.engine.tasks import PictureTask
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.memory_limit import limited_memory, out_of_memory_count, peak_bytes, pretended_limit

if TYPE_CHECKING:
    from predictor.pictures.engine_core import PictureEngineCore
    from predictor.pictures.pipeline import Pipeline

STEPS = 8
TOGETHER = 4
"""Pictures that run out of memory."""


def measure(machine: Machine) -> Iterator[Figure]:
    if not find_spec("diffusers"):
        yield Figure("pictures", "skipped: diffusers is not installed")
        return
    from predictor.pictures.model_defaults import NO_DEFAULTS
    from predictor.pictures.pipeline import Pipeline
    from scripts.gpu.random_models import picture_pipeline

    for tiny in [True] if machine.small else [True, False]:
        pipeline = Pipeline(picture_pipeline(machine, tiny=tiny), NO_DEFAULTS)
        width, height = pipeline.sizes.default
        name = f"{'tiny' if tiny else 'mid-size'} pipeline at {width}x{height}"
        yield Figure(f"{name}: weights", f"{pipeline.weight_bytes / 2**30:.2f}", "GiB")
        alone = 0.0
        for number in (1, 2, 4, 8):
            _paint(pipeline, number)  # builds kernels
            speed = _paint(pipeline, number)
            alone = alone or speed
            yield Figure(f"{name}: {number} at once", round(speed, 2), "steps/s")
            yield Figure(f"{name}: gain of {number} at once", round(speed / alone, 2))
    # The last one is the largest.
    yield from _decode_without_memory(machine, pipeline)


def _paint(pipeline: Pipeline, number: int) -> float:
    """Denoising steps a second of so many whole pictures, decoding included."""
    begun = time.perf_counter()
    _run(pipeline, number)
    return number * STEPS / (time.perf_counter() - begun)


def _run(pipeline: Pipeline, number: int, *, decode: bool = True) -> None:
    """Make so many pictures at once, or only denoise them."""
    from predictor.pictures.batch import PictureBatch, PictureRow

    batch = PictureBatch(pipeline, number)
    rows = [
        PictureRow(replace(pipeline.parameters("a cat", seed=seed), steps=STEPS), lambda _step, _latents: None)
        for seed in range(number)
    ]
    try:
        for row in rows:
            batch.join(row)
        for _ in range(STEPS - 1):
            batch.step()
        while decode and not all(row.ended for row in rows):
            batch.step()
    finally:
        batch.close()
    for row in rows:
        if row.failure:
            raise row.failure


def _decode_without_memory(machine: Machine, pipeline: Pipeline) -> Iterator[Figure]:
    """Pictures whose denoising fits into memory, and whose decoding does not."""
    from predictor.pictures.engine_core import PictureEngineCore

    whole = peak_bytes(machine.device, lambda: _run(pipeline, TOGETHER))
    denoising = peak_bytes(machine.device, lambda: _run(pipeline, TOGETHER, decode=False))
    rows: list[int] = []
    forward = pipeline.denoiser.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(args[0] if args else kwargs["sample"]))
        return forward(*args, **kwargs)

    pipeline.denoiser.forward = counted
    _run(pipeline, 1)
    alone = sum(rows)
    rows.clear()
    core = PictureEngineCore(pipeline, TOGETHER, TOGETHER)
    core.scheduler.start()
    if not machine.small:
        yield Figure("memory of denoising and with decoding", f"{denoising >> 20} and {whole >> 20}", "MiB")
    before = out_of_memory_count()
    begun = time.perf_counter()
    with _limit(machine, pipeline, (denoising + whole) // 2):
        made = asyncio.run(_submit(core))
    core.close()
    core.scheduler.join(60)
    yield Figure(f"{TOGETHER} pictures, too little memory to decode them", round(time.perf_counter() - begun, 2), "s")
    yield Figure("made all the same", made, f"of {TOGETHER}", made == TOGETHER)
    again = sum(rows) - TOGETHER * alone
    yield Figure("rows of denoising steps that were computed again", again, f"of {TOGETHER * alone}", again == 0)
    happened = out_of_memory_count() - before
    yield Figure("out of memory meanwhile", happened, "times", happened > 0)


async def _submit(core: PictureEngineCore) -> int:
    """How many of the pictures were made."""
    made = 0
    asked = [Painting(seed=seed, steps=STEPS) for seed in range(TOGETHER)]
    for generation in [await core.submit(PictureTask("a cat", one)) for one in asked]:
        pictures, _ = await generation.pictures()
        made += len(pictures)
    return made


def _limit(machine: Machine, pipeline: Pipeline, more: int) -> AbstractContextManager[None]:
    if not machine.small:
        return limited_memory(machine.device, more)
    vae = pipeline.pipe.vae
    return pretended_limit(vae, "decode", lambda *_, **__: not vae.use_tiling)
