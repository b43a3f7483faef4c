"""Texts of an engine without a server, for the parts that look at texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.texts.sampling import Sampling
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.tasks import TextTask
from predictor.text.transformers_engine import TransformersEngine


@dataclass(frozen=True)
class Request:
    """A text of `tokens` tokens. `seed` None takes the likeliest token each time."""

    prompt: str
    tokens: int
    seed: int | None = None

    @property
    def task(self) -> TextTask:
        sampling = Sampling(max_tokens=self.tokens, seed=self.seed, temperature=0.0 if self.seed is None else 1.0)
        return TextTask(self.prompt, sampling)


def seeds_of(rows: int) -> dict[str, list[int | None]]:
    """Both ways of writing, and the seeds of so many requests in each."""
    return {"greedy": [None] * rows, "sampled": list(range(rows))}


@contextmanager
def engine(model: Path, device: str, dtype: str, slots: int, length: int) -> Iterator[TransformersEngine]:
    """A loaded engine with at most so many slots, each of `length` tokens."""
    settings = EngineSettings(
        model=str(model), device=device, dtype=dtype, max_concurrency=slots, max_waiting=1024, max_length=length
    )
    made = TransformersEngine(settings)
    made.load(lambda _: None)
    try:
        yield made
    finally:
        made.close()
        made.core.scheduler.join(60)


def write_together(writer: TransformersEngine, requests: Sequence[Request]) -> list[str]:
    async def write() -> list[str]:
        generations = [await writer.submit(request.task) for request in requests]
        completions = await asyncio.gather(*(generation.complete() for generation in generations))
        return [completion.text for completion in completions]

    return asyncio.run(write())


def write_alone(writer: TransformersEngine, requests: Sequence[Request]) -> list[str]:
    """One after the other."""
    return [text for request in requests for text in write_together(writer, [request])]
