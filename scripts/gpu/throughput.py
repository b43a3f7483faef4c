"""Tokens a second, beside raw batched `generate` with the same model in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import uvloop

from scripts.benchmarks.contenders import batched_engine, generate, load, tokens_per_second, write_together
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.random_models import text_model

ROUNDS = 3


def measure(machine: Machine) -> Iterator[Figure]:
    model = text_model(machine)
    tokens = 8 if machine.small else 128
    numbers = (1, 4) if machine.small else (1, 8, 16, 64)
    dtype = "float32" if machine.small else "bfloat16"

    def speed(write: Callable[[list[int]], object], number: int) -> float:
        write([tokens] * number)  # builds kernels
        return tokens_per_second(write, number, tokens, ROUNDS)

    floors: dict[int, float] = {}
    checkpoint = load(model, dtype, machine.device)
    for number in numbers:
        floors[number] = speed(lambda lengths: generate(checkpoint, lengths), number)
        yield Figure(f"{number} at once: raw generate", round(floors[number]), "tokens/s")
    with batched_engine(model, dtype, max(numbers), machine.device) as write:
        for number in numbers:
            ours = speed(lambda lengths: uvloop.run(write_together(write, lengths)), number)
            yield Figure(f"{number} at once: engine", round(ours), "tokens/s")
            yield Figure(f"{number} at once: engine to generate", round(ours / floors[number], 2))
