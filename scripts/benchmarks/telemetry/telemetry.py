"""What metrics, logs and traces cost web: requests a second, and time of a core for each, beside a checkout without.

Each side is a process of its own in front of one model server that answers with one token at once, which is the worst
case: nothing of web's own time hides behind a model. The sides take turns. The collector of traces and the one that
sends requests share the machine with them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scripts.benchmarks.peers.load import Load, measure
from scripts.benchmarks.request_shapes import GENERATE
from scripts.loopback import HOST, free_port
from scripts.progress import tracked
from scripts.project import ROOT
from scripts.reliability.deployment import stub_models, wait_until_it_answers

STOP_SECONDS = 30.0
COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"
SHARE = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}


@dataclass
class Side:
    """A web process, and what was measured of it in each round."""

    name: str
    process: psutil.Process
    port: int
    rates: list[float] = field(default_factory=list)
    """Requests a second."""
    costs: list[float] = field(default_factory=list)
    """Seconds of a core for each request."""

    def measure(self, bodies: list[dict[str, Any]], clients: int) -> None:
        before = _cpu_seconds(self.process)
        measured = measure(Load(self.port, GENERATE.path, bodies, clients))
        self.costs.append((_cpu_seconds(self.process) - before) / len(bodies))
        self.rates.append(len(bodies) / measured.seconds)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench telemetry", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout without metrics, logs and traces")
    parser.add_argument("--requests", type=int, default=2000, help="of each side in each round")
    parser.add_argument("--clients", type=int, default=8, help="at once")
    parser.add_argument("--rounds", type=int, default=8, help="medians are printed; one more is to warm up")
    arguments = parser.parse_args(argv)
    for line in compare(arguments.before.resolve(), arguments.requests, arguments.clients, arguments.rounds):
        print(line, flush=True)


def compare(before: Path, requests: int, clients: int, rounds: int) -> list[str]:
    """A line for each side: its figures, and in brackets as a part of those of `before`."""
    bodies = [{**GENERATE.body(number, 1, False), "temperature": 0.0, "seed": number} for number in range(requests)]
    with ExitStack() as stack:
        model = stack.enter_context(stub_models())
        traced = {COLLECTOR: stack.enter_context(_collector())}
        sides = [
            stack.enter_context(_web(name, folder, model, variables))
            for name, folder, variables in (
                ("before", before, {}),
                ("no traces", ROOT, {}),
                ("a tenth traced", ROOT, traced | SHARE),
                ("all traced", ROOT, traced),
            )
        ]
        for _ in tracked(range(1 + rounds), "rounds"):
            for side in sides:
                side.measure(bodies, clients)
    return [_line(side, sides[0]) for side in sides]


def _line(side: Side, first: Side) -> str:
    """The ratio is the median of those of each round: what disturbs a round disturbs its sides alike."""
    rate, cost = statistics.median(side.rates[1:]), statistics.median(side.costs[1:])
    faster = statistics.median(one / other for one, other in zip(side.rates[1:], first.rates[1:], strict=True))
    dearer = statistics.median(one / other for one, other in zip(side.costs[1:], first.costs[1:], strict=True))
    return f"{side.name}: {rate:.0f} requests/s ({faster:.3f}), {1e3 * cost:.3f} ms of a core for each ({dearer:.3f})"


@contextmanager
def _web(name: str, folder: Path, model: str, variables: dict[str, str]) -> Iterator[Side]:
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "MODELS": json.dumps({"m": model}), "LOG_LEVEL": "info", **variables}
    command = [sys.executable, "-m", "web", "--host", HOST, "--port", str(port)]
    with _running(command, folder, environment, f"http://{HOST}:{port}/healthz") as child:
        yield Side(name, psutil.Process(child.pid), port)


@contextmanager
def _collector() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "scripts.benchmarks.telemetry.collector", str(port)]
    with _running(command, ROOT, dict(os.environ)):
        yield f"http://{HOST}:{port}"


@contextmanager
def _running(
    command: list[str], folder: Path, environment: dict[str, str], url: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Until the end of the context; with a `url`, once it answers there."""
    child = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        if url is not None:
            wait_until_it_answers(url)
        yield child
    finally:
        child.terminate()
        child.wait(STOP_SECONDS)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
