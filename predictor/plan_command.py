"""`python -m predictor plan`: measures a model and prints the resources for its InferenceService."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from predictor.errors import ModelError
from predictor.imports.lean_imports import use_lean_imports
from predictor.loading.cache_folders import beside_model
from predictor.loading.gguf.conversions import Conversion, read_conversion
from predictor.loading.gguf.source import plain_source
from predictor.loading.model_source import check_source, kind_on_hub
from predictor.loading.quantization import refuse_for_pictures
from predictor.measurements.cache import NOWHERE, MeasurementCache
from predictor.plan_settings import PlanCommandSettings
from wire.settings import read_settings

if TYPE_CHECKING:
    import torch

    from predictor.engine.memory.slot_plan import Plan


def _plan_texts(settings: PlanCommandSettings, cache: MeasurementCache) -> tuple[Plan, torch.device, Conversion | None]:
    from predictor.text.checkpoint import load_checkpoint

    with plain_source(settings.model, settings.revision, settings.cache_folder, lambda _: None) as (source, revision):
        checkpoint = load_checkpoint(
            source,
            settings.device,
            settings.dtype,
            lambda _: None,
            settings.load_format,
            revision=revision,
            quantize=settings.quantize,
            pack_weights=settings.pack_weights,
        )
        conversion = read_conversion(Path(source)) if source != settings.model else None
    from predictor.text.batch_check import check_sharing
    from predictor.text.capacity import plan_slots

    shared = check_sharing(checkpoint, settings.max_length, cache)
    most = shared.most(settings.max_concurrency)
    plan = plan_slots(checkpoint, shared.length, most, settings.memory, shared.prefill_tokens, cache)
    return plan, checkpoint.device, conversion


def _plan_pictures(settings: PlanCommandSettings, cache: MeasurementCache) -> tuple[Plan, torch.device, None]:
    refuse_for_pictures(settings.quantize)
    from predictor.pictures.capacity import plan_pictures
    from predictor.pictures.model_defaults import ModelDefaults
    from predictor.pictures.pipeline_loading import load_pipeline

    pipeline = load_pipeline(
        settings.model,
        settings.device,
        settings.dtype,
        lambda _: None,
        revision=settings.revision,
        defaults=ModelDefaults(settings.steps, settings.guidance),
        size=settings.size,
        max_pixels=settings.max_pixels,
        pack_weights=settings.pack_weights,
    )
    plan = plan_pictures(pipeline, settings.max_concurrency, settings.memory, cache)
    print(f"# of pictures with at most {pipeline.sizes.most_pixels} pixels: PREDICTOR_MAX_PIXELS")
    return plan, pipeline.device, None


def _cache_to_fill(settings: PlanCommandSettings) -> MeasurementCache:
    """Finds nothing: a plan is measured. Raises ModelError where there is no folder to save it in."""
    if not settings.save:
        return NOWHERE
    if settings.cache_folder not in ("", "auto"):
        return MeasurementCache(kept_in=[Path(settings.cache_folder)], must_keep=True)
    if not os.path.exists(settings.model):
        raise ModelError(
            "--save keeps what is measured in the model's folder, and a hub id has none: add --cache-folder"
        )
    return MeasurementCache(kept_in=[beside_model(settings.model)], must_keep=True)


def print_plan(argv: list[str]) -> int:
    """Load the model, measure it, and print fields of `spec.predictor`. Returns the exit status."""
    settings = read_settings(PlanCommandSettings, argv)
    use_lean_imports(settings.lean_imports)
    try:
        kind = check_source(settings.model, settings.kind, settings.revision)
        kind = kind or kind_on_hub(settings.model, settings.kind, settings.revision)
        cache = _cache_to_fill(settings)
        plan, device, conversion = (_plan_pictures if kind == "image" else _plan_texts)(settings, cache)
    except ModelError as error:
        print(f"predictor: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        from predictor.engine.memory.memory_pressure import device_failure

        failure = device_failure(error)
        if failure is None:
            raise
        print(f"predictor: {failure}", file=sys.stderr)
        return 1
    if settings.save and not cache.kept:
        print("predictor: nothing is kept: measuring took too long, as beside other programs", file=sys.stderr)
        return 1
    for file in cache.kept:
        print(f"# measured, and kept in {file}")
    needed = math.ceil(plan.cost.memory_for(plan.slots) / 2**20)
    from predictor.engine.memory.slot_plan import PROCESS_BYTES

    on_gpu = device.type != "cpu"
    # Slots are in the GPU's memory. The host's holds Python, and the weights while they are loaded.
    host = needed if not on_gpu else math.ceil((plan.cost.weights + 2 * PROCESS_BYTES) / 2**20)
    print(f"# {plan}")
    if conversion is not None:
        converting = math.ceil((conversion.peak_bytes + PROCESS_BYTES) / 2**20)
        stored = math.ceil(conversion.size / 2**20)
        print(f"# the first start converts the GGUF file, in {converting} MiB of memory, to {stored} MiB in a cache")
        host = max(host, converting)
    if on_gpu:
        print(f"# of GPU memory: {needed} MiB")
    print(
        f"containerConcurrency: {plan.slots}\n"
        f"scaleMetric: concurrency\n"
        f"scaleTarget: {plan.slots}\n"
        f"containers:\n"
        f"  - name: kserve-container\n"
        f"    resources:\n"
        f"      requests: {{memory: {host}Mi}}\n"
        f"      limits: {{memory: {host}Mi{', nvidia.com/gpu: 1' if on_gpu else ''}}}"
    )
    return 0
