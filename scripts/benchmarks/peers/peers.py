"""The predictor and web beside other servers of texts on this machine, each alone and by turns: tokens/s and what part
that is of the best other server's, memory, and whether the texts are those of transformers' `generate`.

Each server is started, asked for its first wave of 16 texts, measured and ended; then comes the next one.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.benchmarks.models import endless
from scripts.benchmarks.peers.contenders import CONTENDERS, STATIC, VLLM, Contender, start
from scripts.benchmarks.peers.load import LoadError
from scripts.benchmarks.peers.measurements import PROMPTS, REQUEST_RATES, TOKENS, Measurement, waves
from scripts.benchmarks.peers.reference import reference_texts
from scripts.benchmarks.peers.table import medians, ratios, render
from scripts.progress import tracked

MODELS = ("gemma-270m", "random-5m")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench peers", description=__doc__)
    parser.add_argument("--peers", default=",".join(CONTENDERS), help="which servers (all of them)")
    parser.add_argument("--models", default=",".join(MODELS), help="which models (both)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=1, help="of each server, by turns; medians are printed")
    parser.add_argument("--clients", default="1,4,8,16", help="numbers of texts at once of the larger model")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are ended then, too
    contenders = _available([CONTENDERS[name] for name in chosen.peers.split(",")])
    clients = [int(number) for number in chosen.clients.split(",")]
    for name, model in endless(chosen.models.split(",")):
        measurement = REQUEST_RATES if name == "random-5m" else waves(clients)
        compare(name, model, chosen.dtype, contenders, measurement, chosen.rounds)


def _available(contenders: Sequence[Contender]) -> list[Contender]:
    """Those whose environments are there or can be made; a line for each that is missing."""
    found = []
    for contender in contenders:
        try:
            if contender.environment:
                contender.environment.make()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{contender.name} is missing: {error}", flush=True)
            continue
        found.append(contender)
    return found


def compare(
    name: str, model: Path, dtype: str, contenders: Sequence[Contender], measurement: Measurement, rounds: int
) -> None:
    """Print the table of one model."""
    expected = reference_texts(model, dtype, PROMPTS, TOKENS)
    figures: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
    for _ in tracked(range(rounds), f"rounds of {name}"):
        for contender in contenders:
            try:
                with ExitStack() as servers:
                    upstream = 0
                    if contender.behind:
                        upstream = servers.enter_context(start(CONTENDERS[contender.behind], model, dtype)).port
                    running = servers.enter_context(start(contender, model, dtype, upstream))
                    found = measurement.measure(running, expected)
                    figures[contender.name].append(found)
                    line = ", ".join(f"{title} {figure:.1f}" for title, figure in found.items())
                    print(f"{contender.name}: {line}", flush=True)  # what an interrupted run has
            except (TimeoutError, LoadError) as error:
                print(f"{contender.name} failed: {error}", flush=True)
    middle = medians(figures)
    load = os.getloadavg()[0]
    print(f"\n{name}, {dtype}, medians of {rounds} by turns, load average {load:.1f}")
    print(f"{TOKENS} tokens each, in tokens/s unless said; in brackets the part of the best other server's\n")
    print(render(measurement.columns, middle, [one.name for one in contenders if one.environment]))
    columns = [column for column in measurement.columns if not column.beside]
    for group in (STATIC, (VLLM,)):
        parts = ratios(columns, middle, group)
        for ours in [one.name for one in contenders if not one.environment and parts.get(one.name)]:
            line = ", ".join(f"{title} {part:.2f}" for title, part in parts[ours].items())
            print(f"{ours} / best of {', '.join(group)}: {line}")
    print(end="", flush=True)
