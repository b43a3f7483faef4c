"""Throughput and latency of texts: each contender beside raw batched `generate`, from the same run."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from scripts.benchmarks.contenders import (
    WriteText,
    WrittenText,
    batched_engine,
    generate,
    load,
    on_own_thread,
    over_http,
    tokens_per_second,
    transformers_manager,
    write_together,
)
from scripts.benchmarks.request_shapes import CHAT, GENERATE
from scripts.benchmarks.servers import start_predictor, start_web

MIXED_SLOTS = 8


class TextThroughput:
    """A table for one model: a row for each contender, a column for each number of texts at once."""

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
        self.floor: dict[int, float] = on_own_thread(self._generate_speeds)
        self._print("generate", [f"{speed:.0f}{'':>15}" for speed in self.floor.values()])
        speeds: dict[int, float] = on_own_thread(self._manager_speeds)
        self._print("manager", [f"{speed:.0f} {speed / self.floor[n]:.2f}{'':>10}" for n, speed in speeds.items()])
        with batched_engine(self.model, self.dtype, slots) as write:
            self._measure_latency("engine", write)
        with start_predictor(self.model, self.dtype, slots) as served:
            self._measure_latency("predictor", over_http(served, CHAT))
            with start_web(served.url) as front:
                self._measure_latency("web", over_http(front, GENERATE))
        self._mixed()

    def _print(self, contender: str, cells: list[str]) -> None:
        print(f"{contender:<12}" + "".join(f"{cell:>24}" for cell in cells), flush=True)

    def _speed(self, write: Callable[[list[int]], object], number: int) -> float:
        return tokens_per_second(write, number, self.tokens, self.rounds)

    def _generate_speeds(self) -> dict[int, float]:
        checkpoint = load(self.model, self.dtype)
        generate(checkpoint, [4])
        return {number: self._speed(lambda lengths: generate(checkpoint, lengths), number) for number in self.batches}

    def _manager_speeds(self) -> dict[int, float]:
        with transformers_manager(load(self.model, self.dtype), max(self.batches)) as write:
            write([4])
            return {number: self._speed(write, number) for number in self.batches}

    def _measure_latency(self, contender: str, write: WriteText) -> None:
        uvloop.run(write_together(write, [4] * max(self.batches)))
        cells = []
        for number in self.batches:
            runs: list[WrittenText] = []

            def write_all(lengths: list[int], runs: list[WrittenText] = runs) -> None:
                runs += uvloop.run(write_together(write, lengths))

            speed = self._speed(write_all, number)
            assert all(run.tokens == self.tokens for run in runs)
            first = 1e3 * statistics.median(run.first_s for run in runs)
            totals = sorted(1e3 * run.total_s for run in runs)
            p99 = totals[min(len(totals) - 1, int(0.99 * len(totals)))]
            cells.append(
                f"{speed:.0f} {speed / self.floor[number]:.2f} {first:.0f}/{statistics.median(totals):.0f}/{p99:.0f}"
            )
        self._print(contender, cells)

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

        static_s: float = on_own_thread(static)
        with batched_engine(self.model, self.dtype, MIXED_SLOTS) as write:
            uvloop.run(write_together(write, [4] * MIXED_SLOTS))
            begun = time.perf_counter()
            uvloop.run(write_together(write, lengths))
            slots_s = time.perf_counter() - begun
        print(
            f"mixed: {sum(lengths)} tokens in 16 texts, {MIXED_SLOTS} at once: static batches {static_s:.1f} s, "
            f"slots {slots_s:.1f} s, ratio {static_s / slots_s:.2f}",
            flush=True,
        )
