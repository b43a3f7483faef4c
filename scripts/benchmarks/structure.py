"""What structured output costs: to compile a structure, to mask the tokens of a text, and the speed of the engine with
it, as a part of the same engine's speed without, greedily and without drafts."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from predictor.engine.tasks import Choice, JsonSchema, Message, Regex, Structure, TextTask
from scripts.benchmarks.contenders import on_own_thread, tokens_per_second
from scripts.benchmarks.models import endless
from scripts.progress import tracked

WALKED = 300
"""Tokens of a random text that fits, of which each is masked."""

_RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "kind": {"enum": ["person", "company", "other"]},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["street", "zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "email", "kind", "address"],
    "additionalProperties": False,
}

_OPTIONAL = {
    "type": "object",
    "properties": {f"p{number}": {"type": "string"} for number in range(400)},
    "additionalProperties": False,
}

# None of them ends within a benchmark's tokens.
STRUCTURES: dict[str, Structure] = {
    "any JSON": Structure(JsonSchema({"type": "array", "minItems": 10_000}), "response_format"),
    "records": Structure(JsonSchema({"type": "array", "items": _RECORD, "minItems": 10_000}), "response_format"),
    "400 optional": Structure(JsonSchema({"type": "array", "items": _OPTIONAL, "minItems": 10_000}), "response_format"),
    "regex": Structure(Regex("([a-z]{1,12} ){10000}"), "guided_regex"),
    "256 choices": Structure(Choice(tuple(f"{n} {'and so on ' * 60}" for n in range(256))), "guided_choice"),
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench structure", description=__doc__)
    parser.add_argument("--models", default="random-5m,gemma-270m", help="which to measure (both)")
    parser.add_argument("--batches", default="1,8", help="numbers of texts at once")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are printed")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args(argv)
    for name, model in endless(arguments.models.split(",")):
        on_own_thread(partial(measure, model, name, arguments))


def measure(model: Path, name: str, arguments: argparse.Namespace) -> None:
    """A table for one model: a row for each structure."""
    from predictor.engine.engine_settings import EngineSettings
    from predictor.text.transformers_engine import TransformersEngine

    batches = [int(number) for number in arguments.batches.split(",")]
    settings = EngineSettings(model=str(model), dtype=arguments.dtype, max_concurrency=max(batches))
    engine = TransformersEngine(settings)
    engine.load(lambda _: None)
    engine.core.batch.drafts = False  # a text that is held to a structure has none
    begun = time.perf_counter()
    _compile_s(engine, Structure(Regex("a"), "guided_regex"))
    first = time.perf_counter() - begun
    print(f"\n{name}, {arguments.dtype}, {arguments.tokens} tokens each, medians of {arguments.rounds}")
    print(f"the first structure, with the import and the vocabulary: {1e3 * first:.0f} ms", flush=True)
    print(f"{'':<16}{'compile':>10}{'mask p50 / p99':>20}" + "".join(f"{f'x{number}':>16}" for number in batches))
    floor = {number: _speed(engine, None, number, arguments) for number in batches}
    print(f"{'no structure':<16}{'':>30}" + "".join(f"{f'{floor[n]:.0f}     ':>16}" for n in batches), flush=True)
    for label, structure in tracked(STRUCTURES.items(), "structures"):
        compile_s = statistics.median(_compile_s(engine, structure) for _ in range(arguments.rounds))
        masks = sorted(_mask_seconds(engine, structure))
        p50, p99 = statistics.median(masks), masks[int(0.99 * len(masks))]
        speeds = [(number, _speed(engine, structure, number, arguments)) for number in batches]
        cells = "".join(f"{f'{speed:.0f} {speed / floor[number]:.2f}':>16}" for number, speed in speeds)
        print(
            f"{label:<16}{1e3 * compile_s:>7.1f} ms{1e6 * p50:>9.0f} / {1e6 * p99:.0f} µs".ljust(46) + cells, flush=True
        )
    engine.close()


def _compile_s(engine: Any, structure: Structure) -> float:
    from predictor.text.structure.grammar import grammar

    text = grammar(structure, None)
    begun = time.perf_counter()
    engine.core.structures.compile_grammar(text)
    return time.perf_counter() - begun


def _mask_seconds(engine: Any, structure: Structure) -> list[float]:
    """Of each token of a text that is chosen at random among what may follow."""
    constraint = asyncio.run(engine.core.structures.compile(structure, None)).begin()
    chance = random.Random(0)
    seconds: list[float] = []
    while len(seconds) < WALKED and not constraint.is_complete():
        begun = time.perf_counter()
        words = constraint.mask()
        seconds.append(time.perf_counter() - begun)
        allowed = [
            32 * at + bit for at, word in enumerate(words.tolist()) if word for bit in range(32) if word >> bit & 1
        ]
        constraint.accept(chance.choice(allowed))
    return seconds


def _speed(engine: Any, structure: Structure | None, number: int, arguments: argparse.Namespace) -> float:
    from contract.texts.sampling import Sampling

    async def write(seed: int, tokens: int) -> None:
        sampling = Sampling(max_tokens=tokens, seed=seed)
        turn: Message = {"role": "user", "content": f"text {seed}"}
        completion = await (await engine.submit(TextTask((turn,), sampling, structure=structure))).complete()
        assert completion.end.completion_tokens == tokens

    async def write_all(lengths: list[int]) -> None:
        await asyncio.gather(*(write(seed, length) for seed, length in enumerate(lengths)))

    asyncio.run(write_all([4] * number))
    return tokens_per_second(
        lambda lengths: asyncio.run(write_all(lengths)), number, arguments.tokens, arguments.rounds
    )
