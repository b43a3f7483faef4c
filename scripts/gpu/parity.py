"""Whether a text in a batch is the text alone.

In float32 on a CPU it is, always. On a GPU the kernels, and with them the rounding, depend on the size of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from statistics import mean

from scripts.gpu.figure import Figure, Machine
from scripts.gpu.random_models import text_model
from scripts.gpu.texts import Request, engine, seeds_of, write_alone, write_together

ROWS = 16


def measure(machine: Machine) -> Iterator[Figure]:
    model = text_model(machine)
    tokens = 16 if machine.small else 128
    for dtype in ("float32", "bfloat16"):
        with engine(model, machine.device, dtype, ROWS, 512) as writer:
            for way, seeds in seeds_of(ROWS).items():
                # Prompts of different lengths, so that no row stands where another does.
                requests = [Request("moon " * (1 + number), tokens, seed) for number, seed in enumerate(seeds)]
                alone = write_alone(writer, requests)
                again = write_alone(writer, requests)
                together = write_together(writer, requests)
                name = f"{dtype}, {way}: "
                equal = sum(map(str.__eq__, alone, together))
                yield Figure(f"{name}alone, written twice", sum(map(str.__eq__, alone, again)), f"of {ROWS} equal")
                exact = machine.device == "cpu" and dtype == "float32"
                yield Figure(f"{name}alone and in a batch", equal, f"of {ROWS} equal", equal == ROWS if exact else None)
                yield Figure(
                    f"{name}equal from the start", round(100 * _equal_share(alone, together), 1), "% of a text"
                )


def _equal_share(ones: list[str], others: list[str]) -> float:
    """Which part of a text is equal before the first difference, on average."""
    pairs = [list(zip(one, other, strict=False)) for one, other in zip(ones, others, strict=True)]
    return mean(len(list(takewhile(lambda both: both[0] == both[1], pair))) / len(pair) for pair in pairs)
