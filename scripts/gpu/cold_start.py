"""From exec to the first token over HTTP, beside a bare script that loads the same model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from statistics import median

from scripts.benchmarks.cold.cold_start import ColdStart, start_floor, start_predictor
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.random_models import text_model
from scripts.progress import tracked

ROUNDS = 3


def measure(machine: Machine) -> Iterator[Figure]:
    if not find_spec("kserve"):
        yield Figure("cold start", "skipped: kserve is not installed")
        return
    model = text_model(machine)
    benchmark = ColdStart(lambda: model, "text", {"max_tokens": 1}, 1.0, plain=False)
    os.environ["PREDICTOR_DEVICE"] = machine.device
    rounds = 1 if machine.small else ROUNDS
    starts = [
        (start_floor(benchmark, model, machine.device), start_predictor(benchmark, model))
        for _ in tracked(range(rounds), "rounds")
    ]
    for phase in starts[0][1].at:
        yield Figure(f"predictor: {phase}", round(median(ours.at[phase] for _, ours in starts), 2), "s after exec")
    for phase in starts[0][1].phases:
        seconds = median(ours.phases[phase] for _, ours in starts)
        yield Figure(f"predictor, phase by itself: {phase}", round(seconds, 2), "s")
    floor = median(bare.at["first token"] for bare, _ in starts)
    yield Figure("bare script: first token", round(floor, 2), "s after exec")
    ratio = median(ours.at["first token"] / bare.at["first token"] for bare, ours in starts)
    yield Figure("predictor to bare script", round(ratio, 2))
