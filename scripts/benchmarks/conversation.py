"""What one user waits for: the first token of a further turn, with what the turns before have left in the cache beside
without; and the speed of texts that repeat their prompt, or nothing, with drafts beside without."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from scripts.benchmarks.contenders import on_own_thread
from scripts.benchmarks.models import gemma, without_end
from scripts.benchmarks.request_shapes import CHAT
from scripts.benchmarks.servers import start_predictor
from scripts.loopback_http import client
from scripts.progress import tracked
from scripts.project import ROOT

ANSWER = 16
"""Tokens of a turn's answer."""

WORDS = ["rain", "river", "mountain", "lantern", "winter", "market", "silver", "garden", "letter", "window", "bridge"]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench conversation", description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000, help="of the first turn, about")
    parser.add_argument("--written", type=int, default=64, help="tokens of each text with and without drafts")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are printed")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = without_end(gemma(ROOT / "data" / "gemma-270m"), Path(folder) / "model")
        _measure_turns(model, arguments)
        on_own_thread(lambda: _measure_drafts(model, arguments))


def _measure_turns(model: Path, arguments: argparse.Namespace) -> None:
    """Conversations of two turns, by turns with and without a salt."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with start_predictor(model, arguments.dtype, 4) as predictor, client() as http:
        for number in tracked(range(2 * arguments.rounds), "conversations"):
            salted = bool(number % 2)
            salt = {"cache_salt": f"user-{number}"} if salted else {}
            turns = [{"role": "user", "content": _sentences(number, arguments.tokens)}]
            _, answer, tokens = _ask(http, predictor.url, turns, salt)
            turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": _sentences(99, 20)}]
            first_s, _, _ = _ask(http, predictor.url, turns, salt)
            seconds[salted].append(first_s)
    without, kept = statistics.median(seconds[False]), statistics.median(seconds[True])
    print(
        f"second turn after {tokens} tokens, first token: {kept:.3f} s with the cache of the first, {without:.3f} s "
        f"without ({kept / without:.2f})",
        flush=True,
    )


def _ask(http: httpx2.Client, url: str, turns: list[dict[str, str]], fields: dict[str, Any]) -> tuple[float, str, int]:
    """Seconds to the first token, the answer, and how many tokens the prompt had."""
    body = {**CHAT.body(0, ANSWER, True), "messages": turns, **fields}
    begun = time.perf_counter()
    first_s, text, tokens = 0.0, "", 0
    with http.stream("POST", url + CHAT.path, json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk.get("usage"):
                tokens = chunk["usage"]["prompt_tokens"]
            for choice in chunk["choices"]:
                piece = choice["delta"].get("content", "")
                first_s = first_s or (time.perf_counter() - begun if piece else 0.0)
                text += piece
    return first_s, text, tokens


def _measure_drafts(model: Path, arguments: argparse.Namespace) -> None:
    """In the engine, one text at a time, by turns."""
    from contract.texts.sampling import Sampling
    from predictor.engine.engine_settings import EngineSettings
    from predictor.engine.tasks import TextTask
    from predictor.text.transformers_engine import TransformersEngine

    engine = TransformersEngine(EngineSettings(model=str(model), dtype=arguments.dtype, max_concurrency=1))
    engine.load(lambda _: None)

    async def write(task: TextTask) -> float:
        """Tokens a second after the first one."""
        completion = await (await engine.submit(task)).complete()
        seconds = time.monotonic() - completion.first_token_at
        return (completion.end.completion_tokens - 1) / seconds

    passage = _sentences(7, 80)
    texts = {
        "a text that repeats its prompt": (f"{passage}\n\n{passage}\n\n{passage[:40]}", 0.0),
        "a text that repeats nothing": (passage, 1.0),
    }
    for what, (prompt, temperature) in texts.items():
        speeds: dict[bool, list[float]] = {False: [], True: []}
        for number in tracked(range(2 * arguments.rounds), what):
            drafts = bool(number % 2)
            engine.core.batch.drafts = drafts
            task = TextTask(prompt, Sampling(max_tokens=arguments.written, temperature=temperature, seed=1))
            speeds[drafts].append(asyncio.run(write(task)))
        without, with_drafts = statistics.median(speeds[False]), statistics.median(speeds[True])
        print(
            f"{what}: {with_drafts:.1f} tokens/s with drafts, {without:.1f} without ({with_drafts / without:.2f})",
            flush=True,
        )
    engine.close()


def _sentences(seed: int, tokens: int) -> str:
    """Words at random, about so many tokens."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(tokens))
