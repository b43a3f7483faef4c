"""How many pictures fit, and how many are worth computing at once; both measured on the pipeline itself."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from predictor.engine.slot_plan import PROCESS_BYTES, Cost, Plan, plan
from predictor.loading.device_memory import available_memory
from predictor.pictures.batch import PictureBatch, PictureRow
from predictor.pictures.pipeline import Pipeline

GAIN = 1.1
"""Twice as many pictures in a forward must bring so much more pictures a second, else they only wait for each other."""

LEAST_PIXEL_BYTES = 256
"""What a pixel of a picture in the making takes at least: an allocator may have had all of it in reserve."""

SEARCH_SECONDS = 10.0
"""After this long no more pictures at once are tried, where something else has the machine: readiness waits for it."""

STEPS = 3
"""Denoising steps that are measured; the shortest counts."""


def plan_pictures(pipeline: Pipeline, max_concurrency: int, memory: int | None) -> Plan:
    """How many slots to serve `pipeline` with, at most `max_concurrency`; a ModelError when not even one fits."""
    width, height = pipeline.size
    deadline = time.monotonic() + SEARCH_SECONDS
    alone = _measure(pipeline, 1)  # and all that a first run does for all that follow
    try:
        together = _measure(pipeline, 2)
    except torch.OutOfMemoryError:  # one fits, as has been seen, and no more
        together = Measure(2, 2 * alone.peak_bytes, math.inf)
    cost = Cost(
        weights=pipeline.weight_bytes,
        once=alone.peak_bytes + (PROCESS_BYTES if pipeline.device.type == "cpu" else 0),
        slot=max(together.peak_bytes - alone.peak_bytes, width * height * LEAST_PIXEL_BYTES),
    )
    memory = available_memory(pipeline.device) if memory is None else memory
    fitting = plan(cost, f"{width}x{height} pixels", max_concurrency, memory)
    return replace(fitting, slots=_knee(pipeline, alone, together, deadline, fitting.slots))


def _knee(pipeline: Pipeline, slower: Measure, faster: Measure, deadline: float, most: int) -> int:
    """The number of pictures past which computing more at once makes no more of them a second. Only forwards are timed,
    for that is all that is computed together."""
    knee = slower.rows
    with contextlib.suppress(torch.OutOfMemoryError):
        while faster.rows <= most:
            if not faster.pays(slower):  # something else may just have taken the machine: measured once more
                if time.monotonic() >= deadline:
                    break
                slower = slower.best(_time(pipeline, slower.rows))
                faster = faster.best(_time(pipeline, faster.rows))
                if not faster.pays(slower):
                    break
            knee = faster.rows
            if 2 * knee > most:
                return most
            if time.monotonic() >= deadline:
                break
            slower, faster = faster, Measure(2 * knee, 0, _time(pipeline, 2 * knee))
    return knee


@dataclass(frozen=True)
class Measure:
    """`rows` pictures at once: bytes at the peak beyond what was there before, and seconds of a forward."""

    rows: int
    peak_bytes: int
    forward_seconds: float

    def pays(self, fewer: Measure) -> bool:
        """Whether so many at once bring more denoising steps a second, of all of them together, than fewer do."""
        return self.rows / self.forward_seconds >= GAIN * fewer.rows / fewer.forward_seconds

    def best(self, forward_seconds: float) -> Measure:
        return replace(self, forward_seconds=min(self.forward_seconds, forward_seconds))


def _measure(pipeline: Pipeline, rows: int) -> Measure:
    """Of whole pictures."""
    before = _reset_peak(pipeline.device)
    seconds = []
    with _started(pipeline, rows, STEPS) as batch:
        while len(batch.step()) < rows:
            seconds.append(batch.forward_seconds)
    return Measure(rows, max(0, _peak(pipeline.device) - before), min(seconds))


def _time(pipeline: Pipeline, rows: int) -> float:
    """Seconds of a forward, of pictures that are left unfinished: decoding them takes longer than these few steps."""
    seconds = []
    with _started(pipeline, rows, STEPS + 1) as batch:
        for _ in range(STEPS):
            batch.step()
            seconds.append(batch.forward_seconds)
    return min(seconds)


@contextlib.contextmanager
def _started(pipeline: Pipeline, rows: int, steps: int) -> Iterator[PictureBatch]:
    batch = PictureBatch(pipeline, rows)
    recipe = replace(pipeline.recipe("a", seed=0), steps=steps)
    for _ in range(rows):
        batch.join(PictureRow(recipe, lambda _step, _latents: None))
    try:
        yield batch
    finally:
        batch.close()


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
