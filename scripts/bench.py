"""Throughput and latency of text, each side beside raw batched `generate` from the same run.

Texts all have the same length: the end-of-sequence token is switched off in a copy of the model's generation config.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bench_models import gemma, random_model

from wire.listener import listen

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
MIXED_SLOTS = 8


@dataclass
class Run:
    """One text: seconds to its first token and to its end, and its tokens."""

    first_s: float
    total_s: float
    tokens: int


Ask = Callable[[int, int], Awaitable[Run]]
"""Write a text number i of n tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--models", default="poet,random-5m,gemma-270m", help="which to measure (all three)")
    parser.add_argument("--batches", default="1,4,8,16", help="numbers of texts at once")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are printed")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    sources: dict[str, Callable[[], Path]] = {
        "poet": lambda: ROOT / "models" / "poet",
        "random-5m": lambda: random_model(ROOT / "data" / "random-5m"),
        "gemma-270m": lambda: gemma(ROOT / "data" / "gemma-270m"),
    }
    for name in arguments.models.split(","):
        try:
            source = sources[name]()
        except ImportError as error:
            print(f"\n{name}: skipped, {error}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            measure(name, endless(source, Path(folder) / name), arguments)


def endless(source: Path, target: Path) -> Path:
    """The model with no end-of-sequence token and greedy by default."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path.resolve())
    config = json.loads((source / "generation_config.json").read_text())
    config = {key: value for key, value in config.items() if key in ("bos_token_id", "pad_token_id")}
    (target / "generation_config.json").unlink()
    (target / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [-1], "do_sample": False}))
    return target


def measure(name: str, model: Path, arguments: argparse.Namespace) -> None:
    batches = [int(number) for number in arguments.batches.split(",")]
    print(f"\n{name}, {arguments.dtype}, {arguments.tokens} tokens each, medians of {arguments.rounds}", flush=True)
    header = f"{'side':<12}" + "".join(f"{f'x{number}':>22}" for number in batches)
    print(header + "    (tokens/s, ratio to generate, ms to first token, p50 and p99 of the whole)")
    floor = {number: generate_speed(model, number, arguments) for number in batches}
    print(f"{'generate':<12}" + "".join(f"{speed:>9.0f}{'':>13}" for speed in floor.values()), flush=True)
    with engine(model, arguments, max(batches)) as ask:
        report("engine", ask, batches, floor, arguments)
    with predictor(model, arguments, max(batches)) as url:
        report("predictor", over_predictor(url), batches, floor, arguments)
        with web(url) as address:
            report("web", over_web(address), batches, floor, arguments)
    mixed(model, arguments)


def report(side: str, ask: Ask, batches: list[int], floor: dict[int, float], arguments: argparse.Namespace) -> None:
    cells = []
    for number in batches:
        runs, speeds = [], []
        for _ in range(arguments.rounds):
            begun = time.perf_counter()
            some = asyncio.run(together(ask, [arguments.tokens] * number))
            speeds.append(sum(run.tokens for run in some) / (time.perf_counter() - begun))
            runs += some
        speed = statistics.median(speeds)
        first = 1e3 * statistics.median(run.first_s for run in runs)
        totals = sorted(1e3 * run.total_s for run in runs)
        p99 = totals[min(len(totals) - 1, int(0.99 * len(totals)))]
        cells.append(
            f"{speed:>9.0f} {speed / floor[number]:>4.2f} {first:>4.0f}/{statistics.median(totals):.0f}/{p99:.0f}"
        )
    print(f"{side:<12}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


async def together(ask: Ask, lengths: list[int]) -> list[Run]:
    return await asyncio.gather(*(ask(number, length) for number, length in enumerate(lengths)))


def prompt(number: int) -> str:
    return f"第{number}首 {random.Random(number).choice('春夏秋冬')}天的{random.Random(number + 99).choice('山水花月')}"


# Raw generate


def load(model: Path, dtype: str) -> Any:
    from predictor.checkpoint import load_checkpoint

    return load_checkpoint(str(model), "auto", dtype, lambda _: None)


def generate_batch(checkpoint: Any, numbers: list[int], tokens: int) -> None:
    import torch

    prompts = [checkpoint.encode(({"role": "user", "content": prompt(number)},)) for number in numbers]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    with torch.inference_mode():
        checkpoint.model.generate(ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=0)


def generate_speed(model: Path, number: int, arguments: argparse.Namespace) -> float:
    checkpoint = load(model, arguments.dtype)
    generate_batch(checkpoint, list(range(number)), 4)
    speeds: list[float] = []
    for _ in range(arguments.rounds):
        begun = time.perf_counter()
        generate_batch(checkpoint, list(range(number)), arguments.tokens)
        speeds.append(number * arguments.tokens / (time.perf_counter() - begun))
    return statistics.median(speeds)


def mixed(model: Path, arguments: argparse.Namespace) -> None:
    """16 texts of 16 to 256 tokens: static batches of 8 wait for their longest, slots do not."""
    context = load(model, arguments.dtype).context
    lengths = [min(16 + 16 * number, context - 32) for number in range(16)]
    random.Random(0).shuffle(lengths)
    checkpoint = load(model, arguments.dtype)
    begun = time.perf_counter()
    for start in range(0, len(lengths), MIXED_SLOTS):
        part = lengths[start : start + MIXED_SLOTS]
        generate_batch(checkpoint, list(range(len(part))), max(part))
    static = time.perf_counter() - begun
    with engine(model, arguments, MIXED_SLOTS) as ask:
        begun = time.perf_counter()
        asyncio.run(together(ask, lengths))
        slots = time.perf_counter() - begun
    print(
        f"mixed: {sum(lengths)} tokens in 16 texts, {MIXED_SLOTS} at once: static batches {static:.1f} s, "
        f"slots {slots:.1f} s, ratio {static / slots:.2f}",
        flush=True,
    )


# Our own sides


@contextmanager
def engine(model: Path, arguments: argparse.Namespace, slots: int) -> Iterator[Ask]:
    from contract.request import Sampling
    from predictor.engine import Finished, TextTask, Token
    from predictor.transformers_engine import TransformersEngine

    server = TransformersEngine(str(model), dtype=arguments.dtype, max_concurrency=slots)
    server.load(lambda _: None)

    async def ask(number: int, tokens: int) -> Run:
        begun = time.perf_counter()
        task = TextTask(({"role": "user", "content": prompt(number)},), Sampling(max_tokens=tokens))
        first = 0.0
        async for event in await server.submit(task):
            if isinstance(event, Token):
                first = first or time.perf_counter() - begun
            elif isinstance(event, Finished):
                return Run(first, time.perf_counter() - begun, event.completion_tokens)
        raise AssertionError

    yield ask
    server.close()


@contextmanager
def predictor(model: Path, arguments: argparse.Namespace, slots: int) -> Iterator[str]:
    flags = ["--model", str(model), "--name", "m", "--dtype", arguments.dtype, "--max-concurrency", str(slots)]
    with process("predictor", [*flags, "--quiet-seconds", "0"]) as url:
        wait(f"{url}/v2/health/ready")
        yield url


@contextmanager
def web(upstream: str) -> Iterator[str]:
    with process("web", ["--models", json.dumps({"m": upstream})]) as url:
        wait(f"{url}/healthz")
        yield url


@contextmanager
def process(module: str, flags: list[str]) -> Iterator[str]:
    with listen(HOST, 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, "--host", HOST, "--port", str(port), "--log-level", "error", *flags]
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        child.terminate()
        child.wait(60)


def wait(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(url)


def over_predictor(url: str) -> Ask:
    def body(number: int, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt(number)}]
        return {"model": "m", "messages": messages, "max_tokens": tokens, "stream": True,
                "stream_options": {"include_usage": True}}  # fmt: skip

    return over_http(f"{url}/openai/v1/chat/completions", body, '"delta":{"content":')


def over_web(url: str) -> Ask:
    def body(number: int, tokens: int) -> dict[str, Any]:
        return {"prompt": prompt(number), "max_tokens": tokens, "stream": True}

    return over_http(f"{url}/generate", body, '{"text":')


def over_http(url: str, body: Callable[[int, int], dict[str, Any]], token: str) -> Ask:
    """`token` stands in the line of every piece of text."""

    async def ask(number: int, tokens: int) -> Run:
        begun = time.perf_counter()
        first = 0.0
        written = 0
        async with (
            httpx.AsyncClient(timeout=600, trust_env=False) as client,
            client.stream("POST", url, json=body(number, tokens)) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not first and token in line:
                    first = time.perf_counter() - begun
                if '"completion_tokens":' in line:
                    written = int(line.split('"completion_tokens":')[1].split(",")[0].rstrip("}"))
        return Run(first, time.perf_counter() - begun, written)

    return ask


if __name__ == "__main__":
    main()
