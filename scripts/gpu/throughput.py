"""Tokens a second, beside raw batched `generate` with the same model in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

from scripts.benchmarks.contenders import generate, load
from scripts.benchmarks.request_shapes import prompt
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.random_models import text_model
from scripts.gpu.texts import Request, engine, write_together

ROUNDS = 3


def measure(machine: Machine) -> Iterator[Figure]:
    model = text_model(machine)
    tokens = 8 if machine.small else 128
    numbers = (1, 4) if machine.small else (1, 8, 16, 64)
    dtype = "float32" if machine.small else "bfloat16"
    floors: dict[int, float] = {}
    checkpoint = load(model, dtype, machine.device)
    for number in numbers:
        floors[number] = _speed(lambda lengths: generate(checkpoint, lengths), number, tokens)
        yield Figure(f"{number} at once: raw generate", round(floors[number]), "tokens/s")
    with engine(model, machine.device, dtype, max(numbers), 1024) as writer:

        def write(lengths: list[int]) -> None:
            write_together(writer, [Request(prompt(each), length) for each, length in enumerate(lengths)])

        for number in numbers:
            speed = _speed(write, number, tokens)
            yield Figure(f"{number} at once: engine", round(speed), "tokens/s")
            yield Figure(f"{number} at once: engine to generate", round(speed / floors[number], 2))


def _speed(write: Callable[[list[int]], None], number: int, tokens: int) -> float:
    """Tokens a second of so many texts at once; the median of the rounds after the first."""
    seconds = []
    for _ in range(1 + ROUNDS):
        begun = time.perf_counter()
        write([tokens] * number)
        seconds.append(time.perf_counter() - begun)
    return number * tokens / median(seconds[1:])
