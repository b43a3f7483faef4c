"""What scripts/bench compares at writing texts: raw `generate`, transformers' own batching, the engine, the servers."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.request_shapes import RequestShape, prompt
from scripts.benchmarks.servers import Server
from scripts.loopback_http import async_client
from scripts.progress import tracked


@dataclass
class WrittenText:
    """Seconds to the first token and to the end, and the number of tokens."""

    first_s: float
    total_s: float
    tokens: int


WriteText = Callable[[int, int], Coroutine[Any, Any, WrittenText]]
"""Write text number i of n tokens."""


async def write_together(write: WriteText, lengths: list[int]) -> list[WrittenText]:
    """Texts of so many tokens each, all at once."""
    return await asyncio.gather(*(write(number, length) for number, length in enumerate(lengths)))


def tokens_per_second(write: Callable[[list[int]], object], number: int, tokens: int, rounds: int) -> float:
    """Speed of so many texts of so many tokens at once; the median of the rounds. `write` takes their lengths."""
    speeds = []
    for _ in tracked(range(rounds), f"rounds of {number}"):
        begun = time.perf_counter()
        write([tokens] * number)
        speeds.append(number * tokens / (time.perf_counter() - begun))
    return statistics.median(speeds)


def on_own_thread(work: Callable[[], Any]) -> Any:
    """Run on a thread that ends afterwards, and give its result.

    OpenMP keeps a pool for every thread that has computed. Once the pools hold more threads than there are cores,
    libgomp lets all of them sleep between operations, which halves the speed of small models.
    """
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def load(model: Path, dtype: str, device: str = "auto") -> Any:
    """A Checkpoint of predictor.text."""
    from predictor.text.checkpoint import load_checkpoint

    return load_checkpoint(str(model), device, dtype, lambda _: None)


def generate(checkpoint: Any, lengths: list[int]) -> None:
    """transformers' `generate`, one static batch: every text is as long as the longest."""
    import torch

    prompts = [_encode(checkpoint, number) for number in range(len(lengths))]
    width = max(map(len, prompts))
    device = checkpoint.model.device
    ids = torch.tensor([[0] * (width - len(one)) + one for one in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
    with torch.inference_mode():
        checkpoint.model.generate(ids, attention_mask=mask, max_new_tokens=max(lengths), pad_token_id=0)


@contextmanager
def transformers_manager(checkpoint: Any, slots: int) -> Iterator[Callable[[list[int]], None]]:
    """transformers' continuous batching, with a cache of our size and without streaming, which costs it least."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    page = 256
    config = ContinuousBatchingConfig(page_size=page, num_blocks=4 * slots, max_batch_tokens=512)
    endless = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = checkpoint.model.init_continuous_batching(generation_config=endless, continuous_batching_config=config)
    batching.start()

    def write(lengths: list[int]) -> None:
        for number, length in enumerate(lengths):
            batching.add_request(_encode(checkpoint, number), max_new_tokens=length)
        done = 0
        while done < len(lengths):
            result = batching.get_result(timeout=60)
            assert result is not None
            assert not result.error
            done += result.is_finished()

    yield write
    batching.stop(block=True)


def _encode(checkpoint: Any, number: int) -> list[int]:
    ids: list[int] = checkpoint.encode(({"role": "user", "content": prompt(number)},)).ids
    return ids


@contextmanager
def batched_engine(model: Path, dtype: str, slots: int, device: str = "auto") -> Iterator[WriteText]:
    """Our engine, without a server."""
    from predictor.engine.engine_settings import EngineSettings
    from predictor.text.transformers_engine import TransformersEngine

    engine = TransformersEngine(EngineSettings(model=str(model), device=device, dtype=dtype, max_concurrency=slots))
    on_own_thread(lambda: engine.load(lambda _: None))

    yield engine_writer(engine)
    engine.close()


def engine_writer(engine: Any) -> WriteText:
    """Texts of a loaded TransformersEngine."""
    from contract.texts.sampling import Sampling
    from predictor.engine.events import TextFinished, Token
    from predictor.engine.tasks import TextTask

    async def write(number: int, tokens: int) -> WrittenText:
        begun = time.perf_counter()
        task = TextTask(({"role": "user", "content": prompt(number)},), Sampling(max_tokens=tokens))
        first = 0.0
        async for event in await engine.submit(task):
            if isinstance(event, Token):
                first = first or time.perf_counter() - begun
            elif isinstance(event, TextFinished):
                return WrittenText(first, time.perf_counter() - begun, event.completion_tokens)
        raise AssertionError

    return write


def over_http(server: Server, shape: RequestShape) -> WriteText:
    """Through a server, streamed, each on a connection of its own."""

    async def write(number: int, tokens: int) -> WrittenText:
        begun = time.perf_counter()
        first = 0.0
        written = 0
        async with (
            async_client() as client,
            client.stream("POST", server.url + shape.path, json=shape.body(number, tokens, True)) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not first and shape.progressed in line:
                    first = time.perf_counter() - begun
                if '"completion_tokens":' in line:
                    written = int(line.split('"completion_tokens":')[1].split(",")[0].rstrip("}"))
        return WrittenText(first, time.perf_counter() - begun, written)

    return write
