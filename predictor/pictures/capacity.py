"""How many pictures fit into memory, and how many are worth computing at once; both measured on the pipeline."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from predictor.engine.slot_plan import PROCESS_BYTES, Cost, Plan, most_slots, plan
from predictor.loading.device_memory import available_memory
from predictor.pictures.batch import PictureBatch, PictureRow
from predictor.pictures.pipeline import Pipeline

GAIN = 1.1
"""Twice as many pictures in a forward must make so many times more of them a second, or they only delay each other."""

LEAST_PIXEL_BYTES = 256
"""Least memory of a pixel in work: an allocator may have had all that was measured in reserve."""

SEARCH_SECONDS = 10.0
"""The search for more pictures at once ends after this: readiness waits for it, and a busy machine is slow."""

STEPS = 3
"""Denoising steps that are timed; the shortest counts."""


def plan_pictures(pipeline: Pipeline, max_concurrency: int | None, memory: int | None) -> Plan:
    """Slots for pictures of the default size, at most `max_concurrency`, as in EngineSettings; `memory` is in bytes.

    Raises ModelError when not even one fits.
    """
    width, height = pipeline.size
    deadline = time.monotonic() + SEARCH_SECONDS
    alone = measure_pictures(pipeline, 1)  # includes what only a first run does
    try:
        together = measure_pictures(pipeline, 2)
    except torch.OutOfMemoryError:  # one fits, as was just seen, and no more
        together = Measure(2, 2 * alone.peak_bytes, math.inf)
    cost = Cost(
        weights=pipeline.weight_bytes,
        once=alone.peak_bytes + (PROCESS_BYTES if pipeline.device.type == "cpu" else 0),
        slot=max(together.peak_bytes - alone.peak_bytes, width * height * LEAST_PIXEL_BYTES),
    )
    memory = available_memory(pipeline.device) if memory is None else memory
    most = most_slots(max_concurrency, pipeline.device.type)
    fitting = plan(cost, f"{width}x{height} pixels", most, memory)
    return replace(fitting, slots=find_knee(pipeline, alone, together, deadline, fitting.slots))


def find_knee(pipeline: Pipeline, slower: Measure, faster: Measure, deadline: float, most: int) -> int:
    """The number of pictures beyond which more at once make no more of them a second. Only forwards are timed, because
    nothing else is computed together."""
    knee = slower.rows
    with contextlib.suppress(torch.OutOfMemoryError):
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
            slower, faster = faster, Measure(2 * knee, 0, time_forward(pipeline, 2 * knee))
    return knee


@dataclass(frozen=True)
class Measure:
    """`rows` pictures at once: bytes at the peak more than before, and seconds of one forward."""

    rows: int
    peak_bytes: int
    forward_seconds: float

    def pays(self, fewer: Measure) -> bool:
        """Whether all together make more denoising steps a second than fewer do."""
        return self.rows / self.forward_seconds >= GAIN * fewer.rows / fewer.forward_seconds

    def best(self, forward_seconds: float) -> Measure:
        return replace(self, forward_seconds=min(self.forward_seconds, forward_seconds))


def measure_pictures(pipeline: Pipeline, rows: int) -> Measure:
    """Make `rows` whole pictures at once."""
    before = _reset_peak(pipeline.device)
    seconds = []
    with _started(pipeline, rows, STEPS) as batch:
        while len(batch.step()) < rows:
            seconds.append(batch.forward_seconds)
    return Measure(rows, max(0, _peak(pipeline.device) - before), min(seconds))


def time_forward(pipeline: Pipeline, rows: int) -> float:
    """Seconds of a forward of `rows` pictures. They stay unfinished: decoding takes longer than these few steps."""
    seconds = []
    with _started(pipeline, rows, STEPS + 1) as batch:
        for _ in range(STEPS):
            batch.step()
            seconds.append(batch.forward_seconds)
    return min(seconds)


@contextlib.contextmanager
def _started(pipeline: Pipeline, rows: int, steps: int) -> Iterator[PictureBatch]:
    batch = PictureBatch(pipeline, rows)
    parameters = replace(pipeline.parameters("a", seed=0), steps=steps)
    for _ in range(rows):
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
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    """Most bytes in use since _reset_peak."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")


def _status(name: str) -> int:
    """Bytes of an entry of /proc/self/status; 0 where there is none."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
