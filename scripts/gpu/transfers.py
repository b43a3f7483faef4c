"""Copies between host and device in a step of the running batch, as torch's profiler counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch.profiler import ProfilerActivity, profile

from predictor.text.transformers_engine import TransformersEngine
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.random_models import text_model
from scripts.gpu.texts import Request, engine, seeds_of, write_together

ROWS = 8
FEW, MORE = 8, 40
"""Tokens of two batches. What the longer one has more is that of steps in which nobody joins or leaves."""

DIRECTIONS = {"to the device": "Memcpy HtoD", "to the host": "Memcpy DtoH"}


def measure(machine: Machine) -> Iterator[Figure]:
    with engine(text_model(machine), machine.device, "auto", ROWS, 512) as writer:
        for way, seeds in seeds_of(ROWS).items():
            few, more = (_copies(writer, tokens, seeds, machine.device) for tokens in (FEW, MORE))
            for direction, name in DIRECTIONS.items():
                a_step = (more[name] - few[name]) / (MORE - FEW)
                kept = a_step <= 1.5 if name == "Memcpy DtoH" else None
                yield Figure(f"{way}: copies {direction} a step", round(a_step, 2), kept=kept)


def _copies(writer: TransformersEngine, tokens: int, seeds: list[int | None], device: str) -> Counter[str]:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.startswith("cuda") else [])]
    with profile(activities=activities) as profiler:
        write_together(writer, [Request("moon", tokens, seed) for seed in seeds])
    counts: Counter[str] = Counter()
    for event in profiler.events() or []:
        for name in DIRECTIONS.values():
            counts[name] += event.name.startswith(name)
    return counts
