"""Running out of memory with texts, and the recovery from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from predictor.text.transformers_engine import TransformersEngine
from scripts.gpu.figure import Figure, Machine
from scripts.gpu.memory_limit import limited_memory, out_of_memory_count, peak_bytes, pretended_limit
from scripts.gpu.random_models import text_model
from scripts.gpu.texts import Request, engine, write_together

ROWS = 16
RECOVERY_SECONDS = 60.0


def measure(machine: Machine) -> Iterator[Figure]:
    prompt, tokens = ("moon " * 20, 12) if machine.small else ("moon " * 200, 200)
    requests = [Request(prompt + str(number), tokens, seed=number) for number in range(ROWS)]
    with engine(text_model(machine), machine.device, "auto", ROWS, 512 if machine.small else 2048) as writer:
        one = peak_bytes(machine.device, lambda: write_together(writer, requests[:1]))
        undisturbed: list[str] = []
        all_bytes = peak_bytes(machine.device, lambda: undisturbed.extend(write_together(writer, requests)))
        if not machine.small:
            yield Figure("working memory of one text and of all", f"{one >> 20} and {all_bytes >> 20}", "MiB")
        before = out_of_memory_count()
        begun = time.perf_counter()
        with _limit(machine, writer, (one + all_bytes) // 2):
            texts = write_together(writer, requests)
        yield Figure(f"{ROWS} texts with too little memory", round(time.perf_counter() - begun, 2), "s")
        happened = out_of_memory_count() - before
        yield Figure("out of memory meanwhile", happened, "times", happened > 0)
        yield Figure("texts whole all the same", sum(map(bool, texts)), f"of {ROWS}", all(texts))
        equal = sum(map(str.__eq__, undisturbed, texts))
        yield Figure("and as without it", equal, f"of {ROWS}", equal == ROWS if machine.small else None)
        begun = time.perf_counter()
        while not _recovered(writer) and time.perf_counter() < begun + RECOVERY_SECONDS:
            write_together(writer, requests)
        yield Figure("until all slots are in use again", round(time.perf_counter() - begun, 2), "s", _recovered(writer))


def _limit(machine: Machine, writer: TransformersEngine, more: int) -> AbstractContextManager[None]:
    if not machine.small:
        return limited_memory(machine.device, more)
    model = writer.core.checkpoint.model
    return pretended_limit(model, "forward", lambda *_, input_ids, **__: len(input_ids) > ROWS // 2)


def _recovered(writer: TransformersEngine) -> bool:
    now = writer.core.scheduler.snapshot()
    return now.usable_slots == now.slots == ROWS
