"""How soon a slot is free after its client has left in the middle of a text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from statistics import median

from predictor.engine.events import Token
from predictor.text.transformers_engine import TransformersEngine
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.random_models import text_model
from scripts.gpu.texts import Request, engine
from scripts.progress import tracked

ROWS = 8
POLL_SECONDS = 0.0005


def measure(machine: Machine) -> Iterator[Figure]:
    repeats = 3 if machine.small else 20
    with engine(text_model(machine), machine.device, "auto", ROWS, 1024) as writer:
        seconds, step = asyncio.run(_measure(writer, repeats))
    yield Figure(f"a step with {ROWS} texts", round(1e3 * step, 2), "ms")
    yield Figure(f"slot free after a client left, median of {repeats}", round(1e3 * median(seconds), 2), "ms")
    yield Figure("the longest of them", round(1e3 * max(seconds), 2), "ms")


async def _measure(writer: TransformersEngine, repeats: int) -> tuple[list[float], float]:
    """Seconds until each slot was free, and of a step."""
    admission = writer.core.admission
    others = [await writer.submit(Request("moon", 900).task) for _ in range(ROWS - 1)]
    seconds, steps = [], []
    for _ in tracked(range(repeats), "clients that leave"):
        leaving = await writer.submit(Request("moon", 900).task)
        events = aiter(leaving)
        while not isinstance(await anext(events), Token):
            pass
        begun = time.perf_counter()
        for _ in range(5):
            await anext(events)
        gone = time.perf_counter()
        steps.append((gone - begun) / 5)
        leaving.close()
        while admission.running == ROWS:  # noqa: ASYNC110  the engine's thread tells nobody
            await asyncio.sleep(POLL_SECONDS)
        seconds.append(time.perf_counter() - gone)
    for other in others:
        other.close()
    return seconds, median(steps)
