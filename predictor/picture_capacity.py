"""How many pictures fit, and how many are worth computing at once; both measured on the pipeline itself."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path

import torch

from predictor.capacity import PROCESS_BYTES, Cost, Plan, available_memory, plan
from predictor.picture_batch import PictureBatch, PictureRow
from predictor.pipeline import Pipeline

GAIN = 1.1
"""Twice as many pictures in a forward must bring so much more pictures a second, else they only wait for each other."""

LEAST_PIXEL_BYTES = 256
"""What a pixel of a picture in the making takes at least: an allocator may have had all of it in reserve."""

_STEPS = 2


def plan_pictures(pipeline: Pipeline, max_concurrency: int, memory: int | None) -> Plan:
    """How many slots to serve `pipeline` with, at most `max_concurrency`; a ModelError when not even one fits."""
    width, height = pipeline.size
    alone, _ = _measure(pipeline, 1)
    together, _ = _measure(pipeline, 2)
    cost = Cost(
        weights=pipeline.weight_bytes,
        once=alone + (PROCESS_BYTES if pipeline.device.type == "cpu" else 0),
        slot=max(together - alone, width * height * LEAST_PIXEL_BYTES),
    )
    memory = available_memory(pipeline.device) if memory is None else memory
    fitting = plan(cost, f"{width}x{height} pixels", max_concurrency, memory)
    return replace(fitting, slots=_knee(pipeline, fitting.slots))


def _knee(pipeline: Pipeline, most: int) -> int:
    """The number of pictures past which computing more at once makes no more of them a second."""
    rows, speed = 1, 1 / _measure(pipeline, 1)[1]
    while 2 * rows <= most:
        faster = 2 * rows / _measure(pipeline, 2 * rows)[1]
        if faster < GAIN * speed:
            return rows
        rows, speed = 2 * rows, faster
    return rows


def _measure(pipeline: Pipeline, rows: int) -> tuple[int, float]:
    """Bytes at the peak of making `rows` pictures at once, beyond what was there before, and seconds of a forward."""
    batch = PictureBatch(pipeline, rows)
    recipe = replace(pipeline.recipe("a", seed=0), steps=_STEPS)
    for _ in range(rows):
        batch.join(PictureRow(recipe, lambda _step, _latents: None))
    before = _reset_peak(pipeline.device)
    seconds = []
    while len(batch.step()) < rows:
        seconds.append(batch.forward_seconds)
    peak = _peak(pipeline.device)
    batch.close()
    return max(0, peak - before), min(filter(None, [*seconds, batch.forward_seconds]))


def _reset_peak(device: torch.device) -> int:
    """Bytes in use now, from where on the peak is taken."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with contextlib.suppress(OSError):  # without, the peak is that of the whole life
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the high-water mark begins anew
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
