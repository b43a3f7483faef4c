"""Who writes the texts in scripts/bench: raw generate, transformers' own batching manager, and each part of ours."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from contract import Kind
from wire.listener import listen

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used: httpx would read all certificates for each client


@dataclass
class Run:
    """One text: seconds to its first token and to its end, and its tokens."""

    first_s: float
    total_s: float
    tokens: int


Ask = Callable[[int, int], Coroutine[Any, Any, Run]]
"""Write a text number i of n tokens."""


async def together(ask: Ask, lengths: list[int]) -> list[Run]:
    return await asyncio.gather(*(ask(number, length) for number, length in enumerate(lengths)))


def prompt(number: int) -> str:
    return f"第{number}首 {random.Random(number).choice('春夏秋冬')}天的{random.Random(number + 99).choice('山水花月')}"


def in_passing(work: Callable[[], Any]) -> Any:
    """Run on a thread that ends. OpenMP keeps a pool for every thread that has computed, and once the pools hold more
    threads than there are cores, libgomp lets all of them sleep between operations: half the speed on small models."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


# What transformers does by itself


def load(model: Path, dtype: str) -> Any:
    from predictor.text.checkpoint import load_checkpoint

    return load_checkpoint(str(model), "auto", dtype, lambda _: None)


def encode(checkpoint: Any, number: int) -> list[int]:
    ids: list[int] = checkpoint.encode(({"role": "user", "content": prompt(number)},))
    return ids


def generate(checkpoint: Any, lengths: list[int]) -> None:
    """One static batch: every text as long as the longest."""
    import torch

    prompts = [encode(checkpoint, number) for number in range(len(lengths))]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    with torch.inference_mode():
        checkpoint.model.generate(ids, attention_mask=mask, max_new_tokens=max(lengths), pad_token_id=0)


@contextmanager
def manager(checkpoint: Any, slots: int) -> Iterator[Callable[[list[int]], None]]:
    """transformers' continuous batching, with a cache of our size and without streaming: as light as it can be."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    page = 256
    config = ContinuousBatchingConfig(page_size=page, num_blocks=4 * slots, max_batch_tokens=512)
    endless = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = checkpoint.model.init_continuous_batching(generation_config=endless, continuous_batching_config=config)
    batching.start()

    def write(lengths: list[int]) -> None:
        for number, length in enumerate(lengths):
            batching.add_request(encode(checkpoint, number), max_new_tokens=length)
        done = 0
        while done < len(lengths):
            result = batching.get_result(timeout=60)
            assert result is not None
            assert not result.error
            done += result.is_finished()

    yield write
    batching.stop(block=True)


# Ours


@contextmanager
def engine(model: Path, dtype: str, slots: int) -> Iterator[Ask]:
    from contract.request import Sampling
    from predictor.engine.events import TextFinished, Token
    from predictor.engine.tasks import TextTask
    from predictor.text.transformers_engine import TransformersEngine

    server = TransformersEngine(str(model), dtype=dtype, max_concurrency=slots)
    in_passing(lambda: server.load(lambda _: None))

    async def ask(number: int, tokens: int) -> Run:
        begun = time.perf_counter()
        task = TextTask(({"role": "user", "content": prompt(number)},), Sampling(max_tokens=tokens))
        first = 0.0
        async for event in await server.submit(task):
            if isinstance(event, Token):
                first = first or time.perf_counter() - begun
            elif isinstance(event, TextFinished):
                return Run(first, time.perf_counter() - begun, event.completion_tokens)
        raise AssertionError

    yield ask
    server.close()


@contextmanager
def predictor(model: Path, dtype: str, slots: int) -> Iterator[Server]:
    flags = ["--model", str(model), "--name", "m", "--dtype", dtype, "--max-concurrency", str(slots)]
    with process("predictor", [*flags, "--quiet-seconds", "0"], "/v2/health/ready") as server:
        yield server


@contextmanager
def web(upstream: str, kind: Kind = "text") -> Iterator[Server]:
    models = json.dumps({"m": {"url": upstream, "kind": kind}})
    with process("web", ["--models", models], "/healthz") as server:
        yield server


@dataclass
class Server:
    """A process that answers at `url`."""

    url: str
    pid: int

    @property
    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def process(module: str, flags: list[str], ready: str) -> Iterator[Server]:
    with listen(HOST, 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, "--host", HOST, "--port", str(port), "--log-level", "error", *flags]
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ)
    try:
        server = Server(f"http://{HOST}:{port}", child.pid)
        _wait(server.url + ready)
        yield server
    finally:
        child.terminate()
        child.wait(60)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False, verify=PLAIN).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(url)


def _chat(number: int, tokens: int, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": prompt(number)}]}
    body |= {"max_tokens": tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def _order(number: int, tokens: int, stream: bool) -> dict[str, Any]:
    return {"prompt": prompt(number), "max_tokens": tokens, "stream": stream}


@dataclass(frozen=True)
class Shape:
    """How a text or a picture is asked for over HTTP: `body` of a number, its tokens or steps, and whether to stream.
    In a stream, `running` is part of the line that says that it is being made, `token` of that of every token or step.
    """

    path: str
    body: Callable[[int, int, bool], dict[str, Any]]
    running: str
    token: str


CHAT = Shape("/openai/v1/chat/completions", _chat, '"role":"assistant"', '"delta":{"content":')
ORDER = Shape("/generate", _order, '"state":"running"', '{"text":')


def over_http(server: Server, shape: Shape) -> Ask:
    async def ask(number: int, tokens: int) -> Run:
        begun = time.perf_counter()
        first = 0.0
        written = 0
        async with (
            httpx.AsyncClient(timeout=600, trust_env=False, verify=PLAIN) as client,
            client.stream("POST", server.url + shape.path, json=shape.body(number, tokens, True)) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not first and shape.token in line:
                    first = time.perf_counter() - begun
                if '"completion_tokens":' in line:
                    written = int(line.split('"completion_tokens":')[1].split(",")[0].rstrip("}"))
        return Run(first, time.perf_counter() - begun, written)

    return ask
