"""How many pictures fit into memory, and how many are worth computing at once; both measured on the pipeline."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from contract.models.description import Size
from predictor.cpu.thread_waiting import Times, times_of_process
from predictor.engine.memory.memory_pressure import device_failure, is_device_error
from predictor.engine.memory.slot_plan import PROCESS_BYTES, Cost, Plan, most_slots, plan
from predictor.errors import ModelError
from predictor.loading.device_memory import available_memory, proc_bytes
from predictor.measurements.cache import NOWHERE, MeasurementCache
from predictor.measurements.key import measurement_key
from predictor.measurements.records import CostRecord, PictureMeasurements
from predictor.pictures.batch import PictureBatch, PictureRow
from predictor.pictures.batch_check import most_together, step_of_trial
from predictor.pictures.picture_sizes import written
from predictor.pictures.pipeline import Pipeline

log = logging.getLogger(__name__)

GAIN = 1.1
"""Twice as many pictures in a forward must make so many times more of them a second, or they only delay each other."""

LEAST_PIXEL_BYTES = 256
"""Least memory of a pixel in work: an allocator may have had all that was measured in reserve."""

SEARCH_SECONDS = 10.0
"""The search for more pictures at once ends after this: readiness waits for it, and a busy machine is slow."""

DISTURBED = 0.1
"""Waiting for a core so much of the time for which they run, threads are held up by others."""

QUIET_LOAD = 0.25
"""Load average of a core, up to which what was measured beside others is measured again."""

STEPS = 3
"""Denoising steps that are timed; the shortest counts."""

MEMORY_STEPS = 2
"""Denoising steps of a picture whose memory is measured: every one takes as much as the first."""

LENGTHS_APART = 32
"""Words by which prompts differ where it is timed: there are models that pad to a multiple of 16 tokens."""

LONG_PROMPT = "a " * 500
"""Some models compute the text of a prompt at its own length, most of them at most 512 tokens of it."""


_STATUS = Path("/proc/self/status")


def plan_pictures(
    pipeline: Pipeline, max_concurrency: int | None, memory: int | None, cache: MeasurementCache = NOWHERE
) -> Plan:
    """Slots for pictures of the largest size, at most `max_concurrency`, as in EngineSettings; `memory` is in bytes.

    Where one of that size cannot be made, and no deployment has asked for it, the default size becomes the largest.
    What `cache` has is not measured again. Raises ModelError when not even one fits.
    """
    memory = available_memory(pipeline.device) if memory is None else memory
    most = most_together(pipeline, most_slots(max_concurrency, pipeline.device.type), cache)
    sizes = pipeline.sizes
    key = measurement_key(pipeline.models, **pipeline.facts, most_pixels=sizes.most_pixels, most=most)
    known = cache.find(PictureMeasurements, key)
    remembered = known and _remembered(pipeline, known, most, memory)
    if remembered:
        return remembered
    fitting = None
    try:
        fitting = _plan_memory(pipeline, most, memory)
    except Exception as error:  # for want of memory, or of positions
        if is_device_error(error) or not pipeline.limit_to_default_size():
            raise
        log.info("no picture is larger than %s: %s", written(pipeline.sizes.default), error)
    # Not while there is the error: it holds what its frames hold.
    fitting = fitting or _plan_memory(pipeline, most, memory)
    deadline = time.monotonic() + SEARCH_SECONDS
    begun = times_of_process()
    knee = find_knee(pipeline, deadline, fitting.slots)
    if time.monotonic() < deadline:  # a search that was cut off says nothing about the next start
        cache.keep(
            PictureMeasurements(
                limited=pipeline.sizes != sizes,
                memory=memory,
                cost=CostRecord.of(fitting.cost),
                knee=knee,
                searched=fitting.slots,
                disturbed=not cache.must_keep and _disturbed(pipeline.device, begun),
            ),
            key,
        )
    return replace(fitting, slots=knee)


def _disturbed(device: torch.device, begun: Times | None) -> bool:
    """Whether others have wanted the cores that compute pictures, since the process had these times."""
    now = times_of_process()
    if device.type != "cpu" or begun is None or now is None:
        return False
    ran, waited = now[0] - begun[0], now[1] - begun[1]
    return waited > DISTURBED * ran


def _undisturbed_now() -> bool:
    """Whether the machine had little to do in the last minute."""
    return os.getloadavg()[0] <= QUIET_LOAD * (os.cpu_count() or 1)


def _remembered(pipeline: Pipeline, known: PictureMeasurements, most: int, memory: int) -> Plan | None:
    """The plan that was measured, for the memory of now; None where it does not say enough."""
    if known.disturbed and _undisturbed_now():
        return None
    if known.limited and memory > known.memory:
        return None  # a larger picture may fit now
    pixels = math.prod(pipeline.sizes.default) if known.limited else pipeline.sizes.most_pixels
    try:
        fitting = _plan(known.cost.cost, pixels, most, memory)
    except ModelError:
        return None  # a smaller one may fit
    knee = known.worthwhile(fitting.slots)
    if knee is None or (known.limited and not pipeline.limit_to_default_size()):
        return None
    return replace(fitting, slots=knee)


def _plan_memory(pipeline: Pipeline, most: int, memory: int) -> Plan:
    pixels = pipeline.sizes.most_pixels
    prompt, alone = LONG_PROMPT, None
    try:
        alone = measure_pictures(pipeline, 1, prompt)  # includes what only a first run does
    except Exception as error:
        if device_failure(error):
            raise
        log.info("a prompt of many words fails: %s: %s", type(error).__name__, error)
        prompt = "a"
    if alone is None:
        alone = measure_pictures(pipeline, 1, prompt)
    try:
        together = measure_pictures(pipeline, 2, prompt) if most > 1 else alone
    except torch.OutOfMemoryError:  # one fits, as was just seen, and no more
        together = 2 * alone
    more = pixels / math.prod(pipeline.sizes.largest)  # sides are whole multiples, so that a little may be missing
    cost = Cost(
        weights=pipeline.weight_bytes,
        once=int(alone * more) + (PROCESS_BYTES if pipeline.device.type == "cpu" else 0),
        slot=max(int((together - alone) * more), pixels * LEAST_PIXEL_BYTES),
    )
    return _plan(cost, pixels, most, memory)


def _plan(cost: Cost, pixels: int, most: int, memory: int) -> Plan:
    return plan(cost, f"{pixels} pixels", most, memory, "give it more, or set a smaller --max-pixels or --size")


def find_knee(pipeline: Pipeline, deadline: float, most: int) -> int:
    """The number of pictures beyond which more at once make no more of them a second. Only forwards are timed, because
    nothing else is computed together; of pictures of the default size, which most are."""
    if most < 2:
        return most
    knee = 1
    slower = Timing(1, time_forward(pipeline, 1))
    with contextlib.suppress(torch.OutOfMemoryError):
        faster = Timing(2, time_forward(pipeline, 2))
        while faster.rows <= most:
            if not faster.pays(slower):  # measured again: something else may have used the machine just then
                if time.monotonic() >= deadline:
                    break
                slower = slower.best(time_forward(pipeline, slower.rows))
                faster = faster.best(time_forward(pipeline, faster.rows))
                if not faster.pays(slower):
                    break
            knee = faster.rows
            if 2 * knee > most:
                return most
            if time.monotonic() >= deadline:
                break
            slower, faster = faster, Timing(2 * knee, time_forward(pipeline, 2 * knee))
    log.info("more pictures at once than %d make no more of them a second; memory would hold %d", knee, most)
    return knee


@dataclass(frozen=True)
class Timing:
    """Seconds of a forward of `rows` pictures."""

    rows: int
    seconds: float

    def pays(self, fewer: Timing) -> bool:
        """Whether all together make more denoising steps a second than fewer do."""
        return self.rows / self.seconds >= GAIN * fewer.rows / fewer.seconds

    def best(self, seconds: float) -> Timing:
        return replace(self, seconds=min(self.seconds, seconds))


def measure_pictures(pipeline: Pipeline, rows: int, prompt: str) -> int:
    """Make `rows` whole pictures of the largest size at once; bytes at the peak more than before."""
    before = _reset_peak(pipeline.device)
    prompts = [prompt] * rows
    # With the guidance of the pipeline's class, which a request may ask for where a distilled model has none.
    with _started(pipeline, prompts, MEMORY_STEPS, pipeline.sizes.largest, guidance=None) as batch:
        while len(step_of_trial(batch)) < rows:
            pass
    return max(0, _peak(pipeline.device) - before)


def time_forward(pipeline: Pipeline, rows: int) -> float:
    """Seconds of the forwards of a step of `rows` pictures, whose prompts are of different lengths: there are models
    that compute those by themselves. They stay unfinished: decoding takes longer than these few steps."""
    seconds = []
    prompts = ["a " * (1 + LENGTHS_APART * (number % 16)) for number in range(rows)]
    with _started(pipeline, prompts, STEPS + 1, pipeline.sizes.default) as batch:
        for _ in range(STEPS):
            step_of_trial(batch)
            seconds.append(batch.forward_seconds)
    return min(seconds)


@contextlib.contextmanager
def _started(pipeline: Pipeline, prompts: list[str], steps: int, size: Size, **more: Any) -> Iterator[PictureBatch]:
    batch = PictureBatch(pipeline, len(prompts))
    width, height = size
    for prompt in prompts:
        parameters = replace(pipeline.parameters(prompt, seed=0), steps=steps, width=width, height=height, **more)
        batch.join(PictureRow(parameters, lambda _step, _latents: None))
    try:
        yield batch
    finally:
        batch.close()


def _reset_peak(device: torch.device) -> int:
    """Begin a new peak; the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with contextlib.suppress(OSError):  # without it, the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the high-water mark begins anew
    return proc_bytes(_STATUS, "VmRSS") or 0


def _peak(device: torch.device) -> int:
    """Most bytes in use since _reset_peak."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return proc_bytes(_STATUS, "VmHWM") or 0
