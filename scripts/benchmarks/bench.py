"""Throughput and latency, each side beside raw batched `generate`, or raw calls of a pipeline, from the same run.

Texts all have the same length: the end-of-sequence token is switched off in a copy of the model's generation config.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from scripts.benchmarks import cold_start, events
from scripts.benchmarks import overhead as service
from scripts.benchmarks import picture_throughput as pictures
from scripts.benchmarks.contenders import (
    CHAT,
    ORDER,
    ROOT,
    Ask,
    Run,
    engine,
    generate,
    in_passing,
    load,
    manager,
    over_http,
    predictor,
    together,
    web,
)
from scripts.benchmarks.models import gemma, random_model

MIXED_SLOTS = 8


def main() -> None:
    if sys.argv[1:2] == ["cold"]:
        cold_start.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--models", default="poet,random-5m,gemma-270m,painter", help="which to measure (all of them)")
    parser.add_argument("--batches", default="1,4,8,16", help="numbers of texts at once")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are printed")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--requests", type=int, default=5000, help="to the random model, while its memory is watched")
    arguments = parser.parse_args()
    sources: dict[str, Callable[[], Path]] = {
        "poet": lambda: ROOT / "models" / "poet",
        "random-5m": lambda: random_model(ROOT / "data" / "random-5m"),
        "gemma-270m": lambda: gemma(ROOT / "data" / "gemma-270m"),
    }
    for name in arguments.models.split(","):
        if name == "painter":
            pictures.measure(ROOT / "models" / name)
            continue
        try:
            source = sources[name]()
        except ImportError as error:
            print(f"\n{name}: skipped, {error}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = endless(source, Path(folder) / name)
            Table(model, arguments).measure(name)
            if name == "random-5m":  # where all that takes time is the server
                service.overhead(model, arguments.dtype)
                events.measure(model, arguments.dtype)
                service.time_to_free_slot(model, arguments.dtype)
                service.endurance(model, arguments.dtype, arguments.requests)


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


class Table:
    """One model, one row for each side, one column for each number of texts at once."""

    def __init__(self, model: Path, arguments: argparse.Namespace) -> None:
        self.model = model
        self.dtype: str = arguments.dtype
        self.tokens: int = arguments.tokens
        self.rounds: int = arguments.rounds
        self.batches = [int(number) for number in arguments.batches.split(",")]

    def measure(self, name: str) -> None:
        print(f"\n{name}, {self.dtype}, {self.tokens} tokens each, medians of {self.rounds}", flush=True)
        header = f"{'side':<12}" + "".join(f"{f'x{number}':>24}" for number in self.batches)
        print(header + "    (tokens/s, ratio to generate, ms to first token / p50 / p99 of the whole)")
        slots = max(self.batches)
        self.floor: dict[int, float] = in_passing(self._generate_speeds)
        self._print("generate", [f"{speed:.0f}{'':>15}" for speed in self.floor.values()])
        speeds: dict[int, float] = in_passing(self._manager_speeds)
        self._print("manager", [f"{speed:.0f} {speed / self.floor[n]:.2f}{'':>10}" for n, speed in speeds.items()])
        with engine(self.model, self.dtype, slots) as ask:
            self._report("engine", ask)
        with predictor(self.model, self.dtype, slots) as served:
            self._report("predictor", over_http(served, CHAT))
            with web(served.url) as front:
                self._report("web", over_http(front, ORDER))
        self._mixed()

    def _print(self, side: str, cells: list[str]) -> None:
        print(f"{side:<12}" + "".join(f"{cell:>24}" for cell in cells), flush=True)

    def _speed(self, write: Callable[[list[int]], object], number: int) -> float:
        speeds = []
        for _ in range(self.rounds):
            begun = time.perf_counter()
            write([self.tokens] * number)
            speeds.append(number * self.tokens / (time.perf_counter() - begun))
        return statistics.median(speeds)

    def _generate_speeds(self) -> dict[int, float]:
        checkpoint = load(self.model, self.dtype)
        generate(checkpoint, [4])
        return {number: self._speed(lambda lengths: generate(checkpoint, lengths), number) for number in self.batches}

    def _manager_speeds(self) -> dict[int, float]:
        with manager(load(self.model, self.dtype), max(self.batches)) as write:
            write([4])
            return {number: self._speed(write, number) for number in self.batches}

    def _report(self, side: str, ask: Ask) -> None:
        uvloop.run(together(ask, [4] * max(self.batches)))
        cells = []
        for number in self.batches:
            runs: list[Run] = []
            speed = self._speed(lambda lengths, runs=runs: runs.extend(uvloop.run(together(ask, lengths))), number)  # type: ignore[misc]
            assert all(run.tokens == self.tokens for run in runs)
            first = 1e3 * statistics.median(run.first_s for run in runs)
            totals = sorted(1e3 * run.total_s for run in runs)
            p99 = totals[min(len(totals) - 1, int(0.99 * len(totals)))]
            cells.append(
                f"{speed:.0f} {speed / self.floor[number]:.2f} {first:.0f}/{statistics.median(totals):.0f}/{p99:.0f}"
            )
        self._print(side, cells)

    def _mixed(self) -> None:
        """16 texts of 16 to 256 tokens: static batches of 8 wait for their longest, slots do not."""
        lengths: list[int] = []

        def static() -> float:
            checkpoint = load(self.model, self.dtype)
            lengths.extend(min(16 + 16 * number, checkpoint.context - 32) for number in range(16))
            random.Random(0).shuffle(lengths)
            generate(checkpoint, [4] * MIXED_SLOTS)
            begun = time.perf_counter()
            for start in range(0, len(lengths), MIXED_SLOTS):
                generate(checkpoint, lengths[start : start + MIXED_SLOTS])
            return time.perf_counter() - begun

        static_s: float = in_passing(static)
        with engine(self.model, self.dtype, MIXED_SLOTS) as ask:
            uvloop.run(together(ask, [4] * MIXED_SLOTS))
            begun = time.perf_counter()
            uvloop.run(together(ask, lengths))
            slots_s = time.perf_counter() - begun
        print(
            f"mixed: {sum(lengths)} tokens in 16 texts, {MIXED_SLOTS} at once: static batches {static_s:.1f} s, "
            f"slots {slots_s:.1f} s, ratio {static_s / slots_s:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
