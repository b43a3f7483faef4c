"""Cold starts: seconds from exec to the first token over HTTP, phase by phase.

The contenders are the predictor, which remembers what an earlier start has measured, or measures it; a bare script
without a server; and a plain KServe predictor. Beside them a model under `scripts/run` wakes up, from a request through
web to its first token or picture. They take turns, so that other load on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmarks.cold.floor import PROMPT
from scripts.benchmarks.cold.wake_up import NappingModel, RestoredModel, SleepingModel
from scripts.benchmarks.models import gemma
from scripts.loopback import HOST, free_port
from scripts.loopback_http import client, get
from scripts.progress import tracked
from scripts.project import ROOT
from scripts.snapshot import criu

POLL_SECONDS = 0.005


@dataclass
class Start:
    """Seconds from exec to the end of each phase, or of a phase by itself, and CPU seconds until the first token."""

    at: dict[str, float]
    cpu: float
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ColdStart:
    """A model, how the predictor is asked for one token or step, and which contenders there are."""

    model: Callable[[], Path]
    kind: str
    instance: dict[str, Any]
    allowed: float
    """Most that it may take, of the time of the bare script."""

    plain: bool
    """Whether a plain KServe predictor can serve it, too."""


BENCHMARKS = {
    "poet": ColdStart(lambda: ROOT / "models" / "poet", "text", {"max_tokens": 1}, 1.0, plain=True),
    "gemma-270m": ColdStart(lambda: gemma(ROOT / "data" / "gemma-270m"), "text", {"max_tokens": 1}, 0.7, plain=True),
    "painter": ColdStart(lambda: ROOT / "models" / "painter", "image", {"steps": 1}, 1.0, plain=False),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench cold", description=__doc__)
    parser.add_argument("--models", default=",".join(BENCHMARKS), help="which to measure (all of them)")
    parser.add_argument("--rounds", type=int, default=7, help="starts of each side; medians are printed")
    chosen = parser.parse_args(arguments)
    for name in chosen.models.split(","):
        benchmark = BENCHMARKS[name]
        try:
            model = benchmark.model()
        except ImportError as error:
            print(f"\n{name}: skipped, {error}", flush=True)
            continue
        _measure(name, benchmark, model, chosen.rounds)


def _measure(name: str, benchmark: ColdStart, model: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as cache, ExitStack() as stack:
        contenders: dict[str, Callable[[], Start]] = {
            "floor": lambda: start_floor(benchmark, model),
            "predictor": lambda: start_predictor(benchmark, model, "--cache-folder", cache),
            "measuring": lambda: start_predictor(benchmark, model, "--cache-folder", ""),
        }
        if benchmark.plain:
            contenders["plain KServe"] = lambda: _plain(benchmark, model)

        def ask(port: int) -> None:
            _ask(port, {"max_tokens": 1} if benchmark.kind == "text" else {})  # or a whole picture

        template = SleepingModel(model, Path(cache), template=True)
        afresh = SleepingModel(model, Path(cache), template=False)
        napping = NappingModel(model, Path(cache))
        for one in (template, afresh, napping):
            stack.callback(one.stop)
        wakers: dict[str, Callable[[], float]] = {
            "through web, forked from the template": template.wake,
            "through web, started afresh": afresh.wake,
            "of a nap at level 2": lambda: napping.wake(ask),
        }
        if criu():
            restored = RestoredModel(model, Path(cache))
            wakers["restored, with plain weights"] = lambda: restored.wake(ask)
        starts: dict[str, list[Start]] = {contender: [] for contender in contenders}
        wakes: dict[str, list[float]] = {how: [] for how in wakers}
        for number in tracked(range(rounds + 1), f"rounds of {name}"):
            started = {contender: start() for contender, start in contenders.items()}
            woken = {how: wake() for how, wake in wakers.items()}
            if number:  # the first round warms the page cache, and is remembered
                for contender in contenders:
                    starts[contender].append(started[contender])
                for how in wakers:
                    wakes[how].append(woken[how])
        template_bytes = template.template_bytes
    load = os.getloadavg()[0]
    print(f"\n{name}: medians of {rounds} starts of each side in turn, warm page cache, load average {load:.1f}")
    _print_starts(benchmark, starts)
    floor = _median(starts["floor"], lambda one: one.at["first token"])
    for how, seconds in wakes.items():
        median = statistics.median(seconds)
        print(
            f"  to the first {'picture' if benchmark.kind == 'image' else 'token'}, {how}: "
            f"{median:.2f} s, {median / floor:.2f} of the floor; {min(seconds):.2f} to {max(seconds):.2f}"
        )
    print(f"  the template takes {template_bytes >> 20} MiB of memory")
    print(f"  imports by package, ms: {_imports(model)}", flush=True)


def _print_starts(benchmark: ColdStart, starts: dict[str, list[Start]]) -> None:
    first = {contender: _median(made, lambda one: one.at["first token"]) for contender, made in starts.items()}
    for contender, made in starts.items():
        cpu = _median(made, lambda one: one.cpu)
        spread = [one.at["first token"] for one in made]
        at = ", ".join(f"{phase} {_median(made, lambda one: one.at[phase]):.2f}" for phase in made[0].at)  # noqa: B023
        print(f"  {contender:<13} seconds since exec: {at}; CPU {cpu:.2f}; {min(spread):.2f} to {max(spread):.2f}")
        if made[0].phases:
            phases = ", ".join(f"{one} {_median(made, lambda s: s.phases[one]):.2f}" for one in made[0].phases)  # noqa: B023
            print(f"  {'':<13} phases by themselves: {phases}")
    cpu_ratio = _median(starts["predictor"], lambda s: s.cpu) / _median(starts["floor"], lambda s: s.cpu)
    ratio = first["predictor"] / first["floor"]
    print(f"  first token over HTTP: {ratio:.2f} of the floor (at most {benchmark.allowed}), CPU {cpu_ratio:.2f}")
    print(f"  first token of a start that measures: {first['measuring'] / first['floor']:.2f} of the floor")
    open_share = _median(starts["predictor"], lambda s: s.at["port open"] / s.at["ready"])
    print(f"  port open: {open_share:.2f} of the time to ready (at most 0.35)")
    if benchmark.plain:
        print(f"  plain KServe takes {first['plain KServe'] / first['predictor']:.2f} times as long (at least 1.5)")


def _median(starts: list[Start], of: Callable[[Start], float]) -> float:
    return statistics.median(of(start) for start in starts)


def start_floor(benchmark: ColdStart, model: Path, device: str = "cpu") -> Start:
    """The bare script."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "scripts.benchmarks.cold.floor", benchmark.kind, str(model), device]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    cpu = _cpu_seconds(child.pid)
    child.wait()
    return Start({phase: at - begun for phase, at in json.loads(line).items()}, cpu)


def _plain(benchmark: ColdStart, model: Path) -> Start:
    port = free_port()
    options = ["--model_path", str(model), "--model_name", "m", "--http_port", str(port), "--enable_grpc", "false"]
    begun = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.cold.plain_kserve", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        at = {"port open": _port_opened(port, child) - begun}
        _ask(port, benchmark.instance)
        at["first token"] = time.monotonic() - begun
        return Start(at, _cpu_seconds(child.pid))
    finally:
        child.terminate()
        child.wait(60)


def start_predictor(benchmark: ColdStart, model: Path, *more: str) -> Start:
    """The predictor, with `more` flags."""
    port = free_port()
    flags = ["--model", str(model), "--name", "m", "--host", HOST, "--port", str(port), "--log-level", "error", *more]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(f"{folder}/notices")  # so that the server need not be polled until it is ready
        notices.settimeout(300)
        begun = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "predictor", *flags, "--quiet-seconds", "0"],
            cwd=ROOT,
            env=os.environ | {"NOTIFY_SOCKET": f"{folder}/notices"},
            stderr=subprocess.DEVNULL,
        )
        try:
            at = {"port open": _port_opened(port, child) - begun}
            while notices.recv(4096) != b"READY=1":
                pass
            at["ready"] = time.monotonic() - begun
            _ask(port, benchmark.instance)
            at["first token"] = time.monotonic() - begun
            return Start(at, _cpu_seconds(child.pid), _phases(port))
        finally:
            child.terminate()
            child.wait(60)


def _ask(port: int, instance: Mapping[str, Any]) -> None:
    body = {"instances": [{"prompt": PROMPT, **instance}]}
    url = f"http://{HOST}:{port}/v1/models/m:predict"
    with client() as http:
        http.post(url, json=body).raise_for_status()


def _phases(port: int) -> dict[str, float]:
    metrics = get(f"http://{HOST}:{port}/metrics").text
    found = re.findall(r'^shangcai_cold_start_phase_seconds\{phase="(.+)"\} (\S+)', metrics, re.MULTILINE)
    return {phase: float(seconds) for phase, seconds in found}


def _port_opened(port: int, child: subprocess.Popen[bytes]) -> float:
    """The time at which the port is first open, of time.monotonic."""
    while child.poll() is None:
        with socket.socket() as client:
            if client.connect_ex((HOST, port)) == 0:
                return time.monotonic()
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{child.args!r} has ended with status {child.returncode}")


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _imports(model: Path) -> str:
    """The ten slowest packages of one more start, under `-X importtime`."""
    port = free_port()
    flags = ["--model", str(model), "--name", "m", "--host", HOST, "--port", str(port), "--quiet-seconds", "0"]
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([sys.executable, "-X", "importtime", "-m", "predictor", *flags], cwd=ROOT, stderr=log)
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                log.seek(0)
                if "ready after" in log.read():
                    break
                time.sleep(0.1)
        finally:
            child.terminate()
            child.wait(60)
        log.seek(0)
        times: Counter[str] = Counter()
        for own, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)", log.read()):
            times[module] += int(own)
    return ", ".join(f"{package} {own / 1000:.0f}" for package, own in times.most_common(10))
